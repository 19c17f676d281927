package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal with so many columns. What is written to it is read from the first file.
func terminal(t *testing.T, columns, rows uint16) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	fd := int(screen.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return screen, tty
}

// On a terminal there are bars, unless it has no room for them or can't move its cursor, as those of some CI systems. Lines for
// programs are never mixed with bars.
func TestWarmOnATerminal(t *testing.T) {
	for _, tt := range []struct {
		name          string
		columns, rows uint16
		term, noColor string
		args          []string
		bars          bool
	}{
		{"a terminal", 80, 24, "xterm", "", nil, true},
		{"a terminal without colours", 80, 24, "xterm", "1", nil, true},
		{"one of low height", 80, 3, "xterm", "", nil, false},
		{"a narrow one", 39, 24, "xterm", "", nil, false},
		{"one without a size", 0, 0, "xterm", "", nil, false},
		{"one that can't move its cursor", 80, 24, "dumb", "", nil, false},
		{"for programs", 80, 24, "xterm", "", []string{"-o", "ndjson"}, false},
		{"for programs, at the end", 80, 24, "xterm", "", []string{"-o", "json"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("TERM", tt.term)
			t.Setenv("NO_COLOR", tt.noColor)
			screen, tty := terminal(t, tt.columns, tt.rows)
			shown := make(chan string)
			go func() {
				text, _ := io.ReadAll(screen) // ends with an error when the terminal is closed
				shown <- string(text)
			}()
			code := run(t.Context(), tty, tty, append([]string{"warm", "a", "--admin", running(t, two())}, tt.args...)...)
			_ = tty.Close()
			text := <-shown
			if bars := strings.Contains(text, "all images"); code != exitFailed || bars != tt.bars || strings.Contains(text, "\x1b") && !tt.bars {
				t.Errorf("code %d, bars %v, want %v:\n%q", code, bars, tt.bars, text)
			}
			if tt.args == nil && strings.Count(text, "docker.io/library/nginx:1.27  30 MiB, 10 MiB of it cached before") != 1 {
				t.Errorf("the line of an image:\n%q", text)
			}
			if strings.Contains(text, "\x1b[3") { // of a colour
				t.Errorf("colours:\n%q", text)
			}
		})
	}
}
