//go:build unguarded_away

package guard

const off = "away"
