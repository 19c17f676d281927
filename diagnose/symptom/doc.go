// Package symptom reads what people paste when a pull fails, and says why it failed: events, logs and errors of the kubelet,
// containerd, CRI-O, Docker and Podman, of builders, CI systems, charts, operators and clouds, from 2015's to today's, as
// text, tables, YAML or JSON.
//
// Promise: a reason is given where the text says it; else the reason is unknown. A text that is surely a failing pull is
// never left out, and a text that is not one always is.
//
// Four stages, each in files of its own:
//
//	lines, peel, json, table   take everything off a message that stands around it: prefixes, colours, borders, wrapping, loggers
//	pull                       finds the messages that tell of a pull that failed, by a reader for each tool
//	rules, subject, near       say why, and of which image at which host, from the message or the lines above it
//	count, join, advice        make one failure of what several programs tell, and say what to do
//
// Guarantees:
//   - It needs neither a cluster nor a running mirror, and does no I/O but reading.
//   - Each failure is counted as often as its events say, once, whichever of the lines around it (back-off, sync error,
//     the runtime's log, a wrapper's echo) are there beside it.
//   - Where the text holds a mirror's own sentence, its id is told, so that the mirror's evidence can be found.
//   - Any input gives a report; time and memory are bounded by the input's size, and no expression backtracks.
//   - A suggested command holds no word of the text that a shell would run.
//
// Not here: why a pull failed, seen from the mirror, which knows more (diagnose).
package symptom
