package app

import (
	"log/slog"
	"syscall"
)

const (
	// maxConns bounds the connections of the main listener: 20,000 idle ones cost some 400 MB.
	maxConns = 20_000
	// maxSideConns bounds those of each listener for operators.
	maxSideConns = 16
	// ownFiles is how many file descriptors are kept at most for anything but clients' connections: files that are sent
	// or written, upstreams, the listeners for operators. Under a low limit it is half of that.
	ownFiles = 8192
	// fewFiles is a limit on open files below which a busy mirror refuses clients.
	fewFiles = 4096
)

// connections is how many connections clients may have, by the process's limit on open files. The Go runtime has raised the
// soft limit to the hard one, for this process and not for programs that it starts.
func connections(log *slog.Logger) int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		log.Warn("cannot read the limit on open files", "error", err)
		return maxConns
	}
	n := within(uint64(limit.Cur))
	if limit.Cur < fewFiles {
		log.Warn("the limit on open files is low, and limits the connections of clients; raise it (LimitNOFILE, ulimit -n)",
			"limit", limit.Cur, "allowed", n)
	}
	return n
}

// within is how many connections fit into a limit on open files.
func within(files uint64) int {
	return int(max(1, min(maxConns, files-min(files/2, ownFiles))))
}
