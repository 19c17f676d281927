//go:build unguarded_public

package guard

const off = "public"
