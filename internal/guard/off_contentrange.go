//go:build unguarded_contentrange

package guard

const off = "contentrange"
