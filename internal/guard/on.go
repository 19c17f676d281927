//go:build !unguarded_size && !unguarded_digest && !unguarded_holdback && !unguarded_contentrange && !unguarded_realm && !unguarded_address && !unguarded_lease && !unguarded_reservation && !unguarded_membership && !unguarded_reference && !unguarded_public

package guard

const off = ""
