// Package symptom reads the text of a failing pull, and explains why it failed: events, logs and errors of the kubelet,
// containerd, CRI-O, Docker and Podman, of builders, CI systems, charts, operators and clouds, from 2015's to today's, as
// text, tables, YAML or JSON.
//
// Promise: a reason is given if the text says it; else the reason is unknown. A text that is certainly about a failing pull
// is never left out, and a text that is not about one always is.
//
// Four stages, each in files of its own:
//
//	read, lines, peel, json    read the input, and remove prefixes, colours, borders, wrapping and loggers around a message
//	pull                       find the messages about a failed pull, by patterns for each tool
//	rules, own, subject, near  find the reason, the image and the host in the message or the lines above it
//	count, join, advice        make one failure of the reports of several programs, and give the remedy
//
// Guarantees:
//   - It needs neither a cluster nor a running mirror, and does no I/O but reading its input.
//   - Each failure is counted as often as its events say, once, with or without the other lines about it (back-off, sync
//     error, the runtime's log, a wrapper's echo).
//   - If the text has a sentence of a mirror, the report has its id, so that the mirror's evidence can be found.
//   - Any input gives a report; time and memory are bounded by the input's size, and no expression backtracks.
//   - A suggested command holds no word of the text that a shell would run.
//
// Not here: why a pull failed as the mirror sees it, which knows more (diagnose).
package symptom
