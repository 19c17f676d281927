//go:build unguarded_seat

package guard

const off = "seat"
