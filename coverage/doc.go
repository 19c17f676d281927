// Package coverage finds images that run on a node and did not come to it through the mirror.
//
//	journal ─> Record.Note ─> batches ─> table: of each client, which images it got, and when ─┐
//	Events of kubelets ─> Record.Pulled ────────────────> of each node, when it pulled which ──┤
//	pods: which node runs which image ─────────────────────────────────────────────────────────┴─> Judge ─> Report
//
// Promise: Judge accuses no node wrongly. An image is missed only where a pull of it is proven (by an Event of the kubelet, or by
// imagePullPolicy Always), at a time when this mirror was recording, and neither the node nor a client that may be the node got
// it then. Everything else that is not known to have come through is unknown, with the cause.
//
// Guarantees:
//   - A pull never waits for the record, and causes no write: the journal hands over pulls that have ended, and they are written
//     together, every half minute.
//   - The record survives a restart, and knows the times in which it did not record. It is bounded by maxEntries, whatever clients
//     call themselves: the address that has most loses first.
//   - Judge is pure: it asks nothing.
//
// What it does not do: read the cluster (internal/kube), or know the pulls of other replicas.
package coverage
