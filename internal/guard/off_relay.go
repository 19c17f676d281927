//go:build unguarded_relay

package guard

const off = "relay"
