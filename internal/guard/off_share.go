//go:build unguarded_share

package guard

const off = "share"
