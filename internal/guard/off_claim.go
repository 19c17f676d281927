//go:build unguarded_claim

package guard

const off = "claim"
