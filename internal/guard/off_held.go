//go:build unguarded_held

package guard

const off = "held"
