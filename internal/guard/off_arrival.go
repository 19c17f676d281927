//go:build unguarded_arrival

package guard

const off = "arrival"
