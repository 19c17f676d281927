package main

import (
	"context"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/registrymirror/mirror/internal/regular"
)

// limitMemory has the garbage collector keep the process below nine tenths of the memory that its control group may have, as the chart
// does by GOMEMLIMIT. That variable wins. Root is the folder in which /proc and /sys are.
func limitMemory(ctx context.Context, root string, log *slog.Logger) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if most := groupMemory(root); most > 0 {
		most -= most / 10
		debug.SetMemoryLimit(most)
		log.InfoContext(ctx, "memory is limited by the control group; garbage is collected so that the mirror stays below nine tenths of that",
			"limit", most)
	}
}

// groupMemory is the memory in bytes that the process's control group, and those above it, may have. 0: it is not limited, or there
// are only groups of version 1.
func groupMemory(root string) (most int64) {
	b, err := regular.Read(filepath.Join(root, "proc/self/cgroup"), 64<<10)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		// In a container the groups above its own, and their names, may not be there.
		for dir := path.Clean("/" + group); ; dir = path.Dir(dir) {
			b, _ := regular.Read(filepath.Join(root, "sys/fs/cgroup", dir, "memory.max"), 64)
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && (most == 0 || n < most) { // else "max"
				most = n
			}
			if dir == "/" {
				break
			}
		}
	}
	return most
}
