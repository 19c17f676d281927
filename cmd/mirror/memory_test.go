package main

import (
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/internal/testlog"
)

// The limit of the process's control group, or of one above it, is the limit of Go's memory, nine tenths of it. GOMEMLIMIT wins.
func TestMemoryOfTheControlGroup(t *testing.T) {
	const mib = 1 << 20
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	unit := map[string]string{
		"proc/self/cgroup": "0::/system.slice/mirror.service\n", "sys/fs/cgroup/system.slice/memory.max": "max\n",
		"sys/fs/cgroup/system.slice/mirror.service/memory.max": "536870912\n",
	}
	for name, tt := range map[string]struct {
		files    map[string]string
		variable string
		want     int64
	}{
		"a unit of systemd":    {unit, "", 512*mib - 512*mib/10},
		"GOMEMLIMIT is set":    {unit, "off", math.MaxInt64},
		"a container":          {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "100000000\n"}, "", 90_000_000},
		"a container's own":    {map[string]string{"proc/self/cgroup": "0::/docker/1f2e\n", "sys/fs/cgroup/memory.max": "100000000\n"}, "", 90_000_000},
		"outside of its own":   {map[string]string{"proc/self/cgroup": "0::/../other\n", "sys/fs/cgroup/memory.max": "100000000\n"}, "", 90_000_000},
		"version 1":            {map[string]string{"proc/self/cgroup": "4:memory:/mirror\n"}, "", math.MaxInt64},
		"none":                 {nil, "", math.MaxInt64},
		"not limited":          {map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}, "", math.MaxInt64},
		"the group above less": {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "1000\n", "sys/fs/cgroup/a/b/memory.max": "2000\n"}, "", 900},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOMEMLIMIT", tt.variable)
			root := t.TempDir()
			for path, text := range tt.files {
				path = filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			debug.SetMemoryLimit(math.MaxInt64)
			var log testlog.Log
			limitMemory(t.Context(), root, slog.New(slog.NewTextHandler(&log, nil)))
			got := debug.SetMemoryLimit(math.MaxInt64)
			if text := log.Take(); got != tt.want || strings.Contains(text, "limit=") != (got < math.MaxInt64) {
				t.Errorf("limit %d, want %d; logged %q", got, tt.want, text)
			}
		})
	}
}
