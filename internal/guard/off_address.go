//go:build unguarded_address

package guard

const off = "address"
