// Package logging makes the process's logger: lines of text on a terminal, JSON elsewhere, and a bound on lines with the
// same message, since their number is up to clients.
package logging

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/term"
)

// New returns the process's logger and the switch of its level, which starts at the one named. Format is "text",
// "json", or "auto": text on a terminal, JSON elsewhere. Lines with the same message are capped.
func New(w io.Writer, format, name string) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	if l, err := ParseLevel(name); err == nil { // a valid configuration names a level
		level.Set(l)
	}
	f, isFile := w.(*os.File)
	tty := isFile && term.IsTerminal(int(f.Fd()))
	h := tint.NewTextHandler(w, &tint.Options{
		Level:      level,
		TimeFormat: time.TimeOnly,
		NoColor:    !tty || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb",
	})
	if format == "json" || format == "auto" && !tty {
		h = slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: legible})
	}
	return slog.New(capped{h, &lineCounts{out: h, messages: make(map[string]*lineCount)}}), level
}

// legible writes durations as people and Go read them, not as nanoseconds.
func legible(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().Round(10 * time.Microsecond).String())
	}
	return a
}

// ParseLevel returns a level by its name in the configuration.
func ParseLevel(name string) (l slog.Level, err error) {
	if err := l.UnmarshalText([]byte(name)); err != nil {
		return 0, fmt.Errorf("log.level: %w", err)
	}
	return l, nil
}
