// Command dashboard writes the dashboards for Grafana into a folder: dashboard.json for operators, and dashboard-users.json for
// people whose pods wait. "go run ./internal/dashboard deploy/helm/mirror/files" makes those of the chart; a test compares them.
//
// A panel is a line of operators.go or users.go. The variables job, instance and upstream come from the series of a mirror, so
// that the dashboards work for one mirror and for several.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: dashboard FOLDER")
		os.Exit(2)
	}
	for name, text := range files() {
		if err := os.WriteFile(filepath.Join(os.Args[1], name), text, 0o644); err != nil { //nolint:gosec // it is for everyone to read
			fmt.Fprintln(os.Stderr, "dashboard:", err)
			os.Exit(1)
		}
	}
}

// files are the dashboards by the names of their files.
func files() map[string][]byte {
	return map[string][]byte{"dashboard.json": operators().json(), "dashboard-users.json": users().json()}
}
