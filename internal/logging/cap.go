package logging

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// The number of pulls, and so of log lines, is up to clients. Each message is written at most linesPerMessage times in a
// lineWindow; the rest are counted, and reported in one line at its end. Messages are constants.
const (
	linesPerMessage = 2000
	lineWindow      = time.Minute
	maxMessages     = 512 // that are counted apart; further ones count as one
)

// capped is a handler that drops the lines above the limit.
type capped struct {
	slog.Handler
	counts *lineCounts
}

// lineCounts counts the lines of each message.
type lineCounts struct {
	out slog.Handler

	mu       sync.Mutex // guards messages; a leaf
	messages map[string]*lineCount
}

type lineCount struct {
	from       time.Time
	lines      int
	suppressed int
}

// Handle implements slog.Handler. Debug lines are not counted: the operator wants all of them.
func (h capped) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo && !h.counts.allow(r.Message) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h capped) WithAttrs(attrs []slog.Attr) slog.Handler {
	return capped{h.Handler.WithAttrs(attrs), h.counts}
}

// WithGroup implements slog.Handler.
func (h capped) WithGroup(name string) slog.Handler {
	return capped{h.Handler.WithGroup(name), h.counts}
}

// allow reports whether a line may be written.
func (b *lineCounts) allow(message string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.messages[message]
	if c == nil && len(b.messages) >= maxMessages {
		message = "other lines"
		c = b.messages[message]
	}
	if c == nil {
		c = new(lineCount)
		b.messages[message] = c
	}
	if now := time.Now(); c.suppressed == 0 && now.Sub(c.from) >= lineWindow {
		c.from, c.lines = now, 0
	}
	if c.lines++; c.lines <= linesPerMessage {
		return true
	}
	if c.suppressed++; c.suppressed == 1 {
		time.AfterFunc(time.Until(c.from.Add(lineWindow)), func() { b.report(message) })
	}
	return false
}

// report writes how many lines of a message were suppressed. Its lines are written again from then on.
func (b *lineCounts) report(message string) {
	b.mu.Lock()
	c := b.messages[message]
	n, from := c.suppressed, c.from
	c.from, c.lines, c.suppressed = time.Now(), 0, 0
	b.mu.Unlock()
	r := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines suppressed: too many with one message", 0)
	r.AddAttrs(slog.String("line", message), slog.Int("suppressed", n), slog.Duration("duration", time.Since(from)))
	_ = b.out.Handle(context.Background(), r) //nolint:contextcheck // it belongs to no request
}
