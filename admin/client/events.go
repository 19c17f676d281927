package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"time"
)

// Event is one of a stream of server-sent events.
type Event struct {
	ID   string // for the Last-Event-ID of the next request
	Data []byte
}

// silence is after how long without a byte a stream counts as broken. The mirror sends something every 15 s.
const silence = time.Minute

// errSilent is the error of a stream that has sent nothing for the time of silence.
var errSilent = errors.New("nothing was sent for a minute")

// Events requests the stream of /api/v1/PATH, and yields its events as they come. It ends when the mirror ends the stream, with the
// context, or with an error, which it yields last: a stream that breaks off is ErrUnreachable, and may be requested again with
// the ID of the last event; empty: there was none.
func (c *Client) Events(ctx context.Context, path, lastID string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer c.http.CloseIdleConnections()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.JoinPath("api/v1", path).String(), http.NoBody)
		if err != nil {
			yield(Event{}, err)
			return
		}
		req.Header.Set("Accept", "text/event-stream")
		if lastID != "" {
			req.Header.Set("Last-Event-ID", lastID)
		}
		watchdog := time.AfterFunc(silence, func() { cancel(errSilent) })
		defer watchdog.Stop()
		resp, err := c.send(req)
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(&heard{resp.Body, watchdog})
		lines.Buffer(nil, maxBody)
		var e Event
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ":")
			value = strings.TrimPrefix(value, " ")
			switch {
			case name == "id":
				e.ID = value
			case name == "data" && e.Data != nil:
				e.Data = append(append(e.Data, '\n'), value...)
			case name == "data":
				e.Data = append([]byte{}, value...)
			case lines.Text() == "" && e.Data != nil:
				if !yield(e, nil) {
					return
				}
				e.Data = nil
			}
		}
		if err := lines.Err(); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			yield(Event{}, fmt.Errorf("%w to the end at %s: %w", ErrUnreachable, c.base, err))
		}
	}
}

// heard restarts the watchdog of a stream with each part that comes.
type heard struct {
	body     io.Reader
	watchdog *time.Timer
}

func (h *heard) Read(b []byte) (int, error) {
	n, err := h.body.Read(b)
	if n > 0 {
		h.watchdog.Reset(silence)
	}
	return n, err
}
