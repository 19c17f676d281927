//go:build unguarded_reservation

package guard

const off = "reservation"
