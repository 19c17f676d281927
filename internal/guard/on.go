//go:build !unguarded_arrival && !unguarded_relay && !unguarded_unread && !unguarded_held && !unguarded_size && !unguarded_digest && !unguarded_holdback && !unguarded_contentrange && !unguarded_realm && !unguarded_address && !unguarded_lease && !unguarded_reservation && !unguarded_membership && !unguarded_public

package guard

const off = ""
