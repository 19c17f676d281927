//go:build unguarded_turns

package guard

const off = "turns"
