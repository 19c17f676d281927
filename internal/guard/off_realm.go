//go:build unguarded_realm

package guard

const off = "realm"
