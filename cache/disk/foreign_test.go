package disk_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/cache/disk"
)

// A folder that others use is told of, and what is in it stays.
func TestFolderWithFilesOfOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func() string {
		t.Helper()
		var b strings.Builder
		s, err := disk.Open(dir, disk.Options{Log: slog.New(slog.NewTextHandler(&b, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	for _, name := range []string{"recency.bin", "index.db", "state.db", "state.db.good", "recency.bin.bad-20260101", "lost+found", ".keep"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // with what the first leaves
		if text := open(); strings.Contains(text, "files of others") {
			t.Errorf("its own: %s", text)
		}
	}
	for _, name := range []string{"holiday.jpg", "thesis.doc"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if text := open(); !strings.Contains(text, `level=WARN msg="the cache folder has files of other programs in it`) ||
		!strings.Contains(text, `name="holiday.jpg thesis.doc"`) {
		t.Errorf("others: %s", text)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "thesis.doc")); err != nil || string(b) != "x" {
		t.Errorf("%q %v", b, err)
	}
}
