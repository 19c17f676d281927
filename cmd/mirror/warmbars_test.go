package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vbauerster/mpb/v8"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/warm"
)

// screen is a terminal: what is written to it, and each picture of the bars.
type screen struct {
	width, height int

	mu       sync.Mutex // guards what follows
	next     bytes.Buffer
	pictures []string
}

func (s *screen) IsTerminal() bool                          { return true }
func (s *screen) GetTermSize() (width, height int, _ error) { return s.width, s.height, nil }
func (s *screen) Write(b []byte) (int, error)               { return s.next.Write(b) }
func (s *screen) ReadFrom(r io.Reader) (int64, error) {
	return s.next.ReadFrom(r)
}

func (s *screen) Flush(int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pictures = append(s.pictures, s.next.String())
	s.next.Reset()
	return nil
}

func (s *screen) picture(n int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n < 0 {
		n += len(s.pictures)
	}
	return s.pictures[n]
}

// drawn shows a state on a screen, and returns the picture.
func drawn(t *testing.T, s *screen, j admin.WarmJob) string {
	t.Helper()
	now := make(chan any)
	b := newBars(os.Stderr, os.Stdout, mpb.WithConsoleWriter(s), mpb.WithManualRefresh(now))
	b.show(j)
	for range 3 { // the third is taken after the first is drawn
		now <- struct{}{}
	}
	picture := s.picture(0)
	b.close()
	return picture
}

// at is a running job with images in each state.
func at() admin.WarmJob {
	return admin.WarmJob{BytesDone: 1 << 30, BytesTotal: 4 << 30, Counts: map[string]int64{"done": 1}, Images: []admin.WarmImage{
		{Image: "docker.io/library/nginx:1.27", State: warm.Done},
		{Image: "docker.io/library/redis:8", State: warm.Running, BytesDone: 30 << 20, BytesTotal: 40 << 20},
		{Image: "123456789012.dkr.ecr.eu-west-1.amazonaws.com/payments/ledger:2026-11-30", State: warm.Running, BytesTotal: 4 << 30},
		{Image: "ghcr.io/acme/app:v9", State: warm.Queued},
		{Image: "ghcr.io/acme/next:v9", State: warm.Running}, // its manifests are being read
	}}
}

func TestBars(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff(`docker.io/library/redis:8                 [========================>--------]       30 MiB of 40 MiB
...zonaws.com/payments/ledger:2026-11-30  [---------------------------------]           0 B of 4 GiB
all images                                [=======>-------------------------]         1 GiB of 4 GiB
1 of 5 images done, 1 GiB of 4 GiB
`, drawn(t, &screen{width: 100, height: 30}, at())); diff != "" {
		t.Error(diff)
	}
	many := at()
	for range 1000 {
		many.Images = append(many.Images, many.Images[1])
	}
	for _, tt := range []struct{ width, height int }{{100, 30}, {80, 24}, {60, 5}, {40, 4}, {39, 2}, {10, 3}, {3, 1}, {1, 1}, {0, 0}} {
		for _, j := range []admin.WarmJob{at(), many, {}} {
			picture := drawn(t, &screen{width: tt.width, height: tt.height}, j)
			if n := strings.Count(picture, "\n"); n > max(tt.height, 2) || n > maxBars+2 {
				t.Errorf("%d lines in %d", n, tt.height)
			}
			for line := range strings.Lines(picture) {
				if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > tt.width {
					t.Errorf("%d columns in %d: %q", n, tt.width, line)
				}
			}
		}
	}
}

// Lines go above the bars, and stay when the bars are gone.
func TestLinesAboveBars(t *testing.T) {
	t.Parallel()
	s := &screen{width: 80, height: 24}
	b := newBars(os.Stderr, io.Discard, mpb.WithConsoleWriter(s))
	b.above = true
	j := at()
	for i := range 300 { // images come and go
		j.Images[1].State = []warm.State{warm.Running, warm.Done, warm.Failed}[i%3]
		j.BytesDone, j.BytesTotal = int64(i)<<20, int64(i+i%7)<<20 // also whole for a moment, while manifests are read
		if _, err := fmt.Fprintf(b, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
		b.show(j)
	}
	b.close()
	s.mu.Lock()
	all := strings.Join(s.pictures, "")
	s.mu.Unlock()
	for i := range 300 {
		if n := strings.Count(all, fmt.Sprintf("line %d\n", i)); n != 1 {
			t.Errorf("line %d was written %d times", i, n)
		}
	}
	if last := s.picture(-1); strings.Contains(last, "all images") {
		t.Errorf("the bars stay:\n%s", last)
	}
}

// A terminal that goes away does not hold up the command, and no line is lost that can be written.
func TestBarsWithoutATerminal(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	b := newBars(os.Stderr, &out, mpb.WithConsoleWriter(gone{&screen{width: 80, height: 24}}))
	b.above = true
	b.show(at())
	b.progress.Wait() // it has given up
	for range 2 {
		b.show(at())
		if _, err := io.WriteString(b, "line\n"); err != nil {
			t.Error(err)
		}
	}
	b.close()
	if out.String() != "line\nline\n" {
		t.Errorf("%q", &out)
	}
}

// gone is a terminal that is no longer there.
type gone struct{ *screen }

func (gone) Flush(int) error { return errors.New("gone") }
