// Package node writes the configuration with which the clients of a node (containerd and its relatives, CRI-O, Podman, Docker,
// BuildKit, and what distributions of Kubernetes make of these) pull through the mirror.
//
// Promise: what is written is exactly what that client reads, and an option that a client has no setting for is an error, not a
// file that leaves it out.
//
// Guarantees:
//   - The registry itself stays the place where the client goes on if the mirror can't be reached, unless Options.NoFallback says
//     otherwise.
//   - No value that is written can end its line, its string or its table: each is checked, and quoted.
//   - Names and addresses that are written are those that the caller gives. Nothing is looked up.
//
// Check reads such files on a node, those of other tools too, and finds what keeps images from being pulled through the mirror;
// Report.AskAll and Report.Try then ask the mirrors that the files name. Check itself contacts no host.
//
// Not here: which registries the mirror has (config), and where the files end up, apart from their usual paths.
package node
