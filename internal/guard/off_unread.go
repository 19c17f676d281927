//go:build unguarded_unread

package guard

const off = "unread"
