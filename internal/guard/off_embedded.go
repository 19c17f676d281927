//go:build unguarded_embedded

package guard

const off = "embedded"
