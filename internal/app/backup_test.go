package app_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/registrymirror/mirror/internal/origin"
)

// What docs/upgrade.md says of backups: with state.db put back, what is cached pulls by tag while the registry is down;
// without it, not. Everything else but the blobs may be lost.
func TestBackupOfState(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	o.AddImage("acme/app", "v1", origin.Image{})
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	r := run(t, parse(t, dir, upstreamOf(o)))
	if err := errors.Join(r.pull(t, o, "acme/app:v1"), r.stop()); err != nil {
		t.Fatal(err)
	}
	backup, err := os.ReadFile(filepath.Join(data, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	o.Down()
	lose := func() {
		t.Helper()
		left, err := os.ReadDir(data)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range left {
			if e.Name() != "blobs" {
				if err := os.RemoveAll(filepath.Join(data, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
			}
		}
	}

	lose()
	r = run(t, parse(t, dir, upstreamOf(o)))
	if err := r.pull(t, o, "acme/app:v1"); err == nil {
		t.Error("without state.db it was pulled by tag")
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	lose()
	if err := os.WriteFile(filepath.Join(data, "state.db"), backup, 0o600); err != nil {
		t.Fatal(err)
	}
	r = run(t, parse(t, dir, upstreamOf(o)))
	if err := r.pull(t, o, "acme/app:v1"); err != nil {
		t.Errorf("with the backup: %v", err)
	}
}
