//go:build unguarded_size

package guard

const off = "size"
