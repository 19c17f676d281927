//go:build !unguarded_address && !unguarded_arrival && !unguarded_away && !unguarded_claim && !unguarded_command && !unguarded_contentrange && !unguarded_digest && !unguarded_embedded && !unguarded_held && !unguarded_holdback && !unguarded_lease && !unguarded_membership && !unguarded_memory && !unguarded_pace && !unguarded_public && !unguarded_realm && !unguarded_reference && !unguarded_relay && !unguarded_reservation && !unguarded_seat && !unguarded_share && !unguarded_site && !unguarded_size && !unguarded_turns && !unguarded_unread && !unguarded_whole

package guard

const off = ""
