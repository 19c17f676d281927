//go:build unguarded_membership

package guard

const off = "membership"
