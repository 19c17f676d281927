//go:build unguarded_site

package guard

const off = "site"
