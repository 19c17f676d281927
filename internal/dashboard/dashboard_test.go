package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// The chart has the dashboards that this package makes. UPDATE=1 writes them.
func TestDashboardsOfTheChart(t *testing.T) {
	t.Parallel()
	for name, want := range files() {
		path := filepath.Join("..", "..", "deploy", "helm", "mirror", "files", name)
		if os.Getenv("UPDATE") != "" {
			if err := os.WriteFile(path, want, 0o644); err != nil { //nolint:gosec // it is for everyone to read
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what this package makes (%v); UPDATE=1 go test ./internal/dashboard writes it", path, err)
		}
	}
}
