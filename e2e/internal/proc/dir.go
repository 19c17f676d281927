package proc

import (
	"os"
	"testing"
)

// Dir is a folder until the test ends, with a name so short that sockets and Podman's runroot fit in, which may have
// 108 and 50 bytes in all.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}
