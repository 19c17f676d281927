//go:build unguarded_memory

package guard

const off = "memory"
