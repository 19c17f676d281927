// Package symptom reads what clients print when a pull fails, and says why it failed: the events and logs of the
// kubelet, containerd, CRI-O, Docker and Podman, from 2017's to today's, as text or as JSON.
//
// Promise: a reason is given where the text says it; else the reason is unknown. What is no failure of a pull is left
// out.
//
// Guarantees:
//   - It needs neither a cluster nor a running mirror, and does no I/O but reading.
//   - Each failure is counted as often as its events say, once, whichever of the lines around it (back-off, sync error,
//     the runtime's log) are there beside it.
//   - Where the text holds a mirror's own sentence, its id is told, so that the mirror's evidence can be found.
//   - Any input gives a report, and memory is bounded by the input's size.
//
// Not here: why a pull failed, seen from the mirror, which knows more (diagnose).
package symptom
