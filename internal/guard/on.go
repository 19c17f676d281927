//go:build !unguarded_address && !unguarded_claim && !unguarded_contentrange && !unguarded_digest && !unguarded_embedded && !unguarded_holdback && !unguarded_lease && !unguarded_membership && !unguarded_memory && !unguarded_public && !unguarded_realm && !unguarded_reference && !unguarded_reservation && !unguarded_size && !unguarded_turns

package guard

const off = ""
