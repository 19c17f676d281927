//go:build unguarded_lease

package guard

const off = "lease"
