//go:build unguarded_holdback

package guard

const off = "holdback"
