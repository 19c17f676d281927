package config_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/registrymirror/mirror/config"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// These are events of a real file system. That each comes well before the next look, after 30 s, is the point.
func TestWatchNoticesAtOnce(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		set    func(t *testing.T, dir string) // makes config.yaml, and other/ca.crt
		change func(t *testing.T, dir string)
	}{
		{
			"written in place", nil,
			func(t *testing.T, dir string) { put(t, filepath.Join(dir, "config.yaml"), "two") },
		},
		{
			"replaced, as editors do", nil,
			func(t *testing.T, dir string) {
				put(t, filepath.Join(dir, "config.yaml~"), "two")
				rename(t, filepath.Join(dir, "config.yaml~"), filepath.Join(dir, "config.yaml"))
			},
		},
		{
			"a file that it names", nil,
			func(t *testing.T, dir string) { put(t, filepath.Join(dir, "other", "ca.crt"), "two") },
		},
		{
			"a file that it names, which was not there", nil,
			func(t *testing.T, dir string) { put(t, filepath.Join(dir, "later", "tls.crt"), "two") },
		},
		{
			"the file itself, which was not there",
			func(t *testing.T, dir string) {},
			func(t *testing.T, dir string) { put(t, filepath.Join(dir, "config.yaml"), "two") },
		},
		{
			"a mounted ConfigMap, whose ..data is another link",
			func(t *testing.T, dir string) {
				if err := os.Mkdir(filepath.Join(dir, "..1"), 0o700); err != nil {
					t.Fatal(err)
				}
				put(t, filepath.Join(dir, "..1", "config.yaml"), "one")
				link(t, "..1", filepath.Join(dir, "..data"))
				link(t, filepath.Join("..data", "config.yaml"), filepath.Join(dir, "config.yaml"))
			},
			func(t *testing.T, dir string) {
				if err := os.Mkdir(filepath.Join(dir, "..2"), 0o700); err != nil {
					t.Fatal(err)
				}
				put(t, filepath.Join(dir, "..2", "config.yaml"), "two")
				link(t, "..2", filepath.Join(dir, "..tmp"))
				rename(t, filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data"))
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, folder := range []string{"other", "later"} {
				if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			put(t, filepath.Join(dir, "other", "ca.crt"), "one")
			if tt.set == nil {
				put(t, filepath.Join(dir, "config.yaml"), "one")
			} else {
				tt.set(t, dir)
			}
			changed := config.Watch(t.Context(), filepath.Join(dir, "config.yaml"),
				[]string{
					filepath.Join(dir, "other", "ca.crt"), filepath.Join(dir, "missing", "file"),
					filepath.Join(dir, "later", "tls.crt"),
				},
				slog.New(slog.DiscardHandler))
			tt.change(t, dir)
			select {
			case <-changed:
			case <-time.After(20 * time.Second):
				t.Error("nothing was noticed in 20 s")
			}
		})
	}
}

func TestWatchOfNothing(t *testing.T) {
	t.Parallel()
	changed := config.Watch(t.Context(), "", nil, slog.New(slog.DiscardHandler))
	if changed == nil || len(changed) > 0 {
		t.Errorf("the channel is %v, with %d changes", changed, len(changed))
	}
}
