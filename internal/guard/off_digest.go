//go:build unguarded_digest

package guard

const off = "digest"
