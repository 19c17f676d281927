//go:build unguarded_pace

package guard

const off = "pace"
