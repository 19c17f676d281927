package app

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Clients decide how many pulls there are, and by that how many lines the log gets. Of lines with the same message, which
// are constants, so many a minute are written; the rest are counted, and told in one line at the end of the minute.
const (
	linesPerMessage = 2000
	lineWindow      = time.Minute
	maxMessages     = 512 // that are told apart; further ones count as one
)

// capped is a handler that drops what is too much.
type capped struct {
	slog.Handler
	book *lineBook
}

// lineBook counts lines.
type lineBook struct {
	out slog.Handler

	mu       sync.Mutex // guards what follows; a leaf
	messages map[string]*lineCount
}

type lineCount struct {
	from       time.Time
	lines      int
	suppressed int
}

func newCapped(h slog.Handler) slog.Handler {
	return capped{h, &lineBook{out: h, messages: make(map[string]*lineCount)}}
}

// Handle implements slog.Handler. Lines for debugging are not counted: the operator has asked for all of them.
func (h capped) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo && !h.book.takes(r.Message) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h capped) WithAttrs(attrs []slog.Attr) slog.Handler {
	return capped{h.Handler.WithAttrs(attrs), h.book}
}

// WithGroup implements slog.Handler.
func (h capped) WithGroup(name string) slog.Handler { return capped{h.Handler.WithGroup(name), h.book} }

// takes reports whether a line may be written.
func (b *lineBook) takes(message string) bool {
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
		time.AfterFunc(time.Until(c.from.Add(lineWindow)), func() { b.tell(message) })
	}
	return false
}

// tell says how many lines of a message were suppressed, and begins to write them again.
func (b *lineBook) tell(message string) {
	b.mu.Lock()
	c := b.messages[message]
	n, from := c.suppressed, c.from
	c.from, c.lines, c.suppressed = time.Now(), 0, 0
	b.mu.Unlock()
	r := slog.NewRecord(time.Now(), slog.LevelWarn, "too many log lines with one message: the rest are not written", 0)
	r.AddAttrs(slog.String("message", message), slog.Int("suppressed", n), slog.Time("since", from))
	_ = b.out.Handle(context.Background(), r) //nolint:contextcheck // it belongs to no request
}
