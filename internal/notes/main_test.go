package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const changelog = `# Changelog

## Unreleased

- [FEATURE] not yet

## v1.1.0 (2026-12-01)

For those in a hurry.

- [BUGFIX] one
  in two lines
- [FEATURE] two
- [CHANGE] three; write x
- [BUGFIX] four

## v1.1

- [BUGFIX] another
`

func TestNotes(t *testing.T) {
	t.Parallel()
	got, err := notes(strings.NewReader(changelog), "v1.1.0")
	want := "For those in a hurry.\n\n## Changes that may need you\n\n- three; write x\n\n## New\n\n- two\n\n" +
		"## Mended\n\n- one\n  in two lines\n- four\n"
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for text, version := range map[string]string{
		changelog: "v2.0.0", "## v1\n- [BUGS] x\n": "v1", "## v1\n- x\n": "v1",
	} {
		if got, err := notes(strings.NewReader(text), version); err == nil {
			t.Errorf("%s of %q: %s", version, text, got)
		}
	}
}

// The changelog of this project can be read.
func TestOurs(t *testing.T) {
	t.Parallel()
	f, err := os.Open("../../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if text, err := notes(f, "Unreleased"); err != nil || !strings.Contains(text, "\n## New\n") {
		t.Errorf("%v\n%s", err, text)
	}
}
