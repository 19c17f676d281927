package admin

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/warm"
)

const (
	// MaxStreams is how many streams of events there may be at once. Each is a connection of the listener.
	MaxStreams = 128
	// heartbeat is how often a stream without events sends a comment, so that proxies do not take it for dead.
	heartbeat = 15 * time.Second
	// pauseForImage is how long a stream pauses after an event for each image that may be in it.
	pauseForImage = time.Millisecond
	// writeTime is how long a client may leave an event unread. Then its stream ends.
	writeTime = 30 * time.Second
)

// events streams the states of a job as server-sent events: the state now, then each change. The id of an event is the revision
// of the job; a client that has the present one gets nothing until the next. After the final state the stream ends, and a client
// that has seen that state is answered with 204: then a browser no longer asks.
func (x *warming) events(w http.ResponseWriter, r *http.Request) (any, error) {
	job, err := x.find(r)
	if err != nil {
		return nil, err
	}
	seen := r.Header.Get("Last-Event-ID")
	if job.State.Over() && seen == revision(job) {
		return noContent, nil
	}
	select {
	case x.streams <- struct{}{}:
		defer func() { <-x.streams }()
	default:
		return nil, busy(fmt.Sprintf("there are %d streams of events, the most that there may be; ask for /api/v1/warm/%s now and then", MaxStreams, job.ID))
	}
	// The connection ends with the stream: the deadline of the last write stays.
	w.Header().Set("Connection", "close")
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // for nginx in front
	x.stream(r.Context(), stream{w: w, control: http.NewResponseController(w)}, job.ID, seen)
	return nil, errAnswered
}

// stream sends the states of a job until it has ended, the client leaves or does not read, or the mirror stops. A state that the
// client is too slow for is left out.
func (x *warming) stream(ctx context.Context, s stream, id, seen string) {
	f, leave := x.feeds.join(id)
	defer leave()
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	has, _ := strconv.ParseInt(seen, 10, 64) // 0: it has none
	err := s.send("retry: 2000\n\n")
	for err == nil {
		n, failed := f.news(has)
		has = n.revision
		switch {
		case failed != nil:
			return
		case n.text != "":
			if err = s.send(n.text); err == nil && !n.over {
				backoff.Wait(ctx, n.pause)
			}
			continue
		case n.over:
			return
		}
		select {
		case <-n.changed:
		case <-beat.C:
			err = s.send(":\n\n")
		case <-ctx.Done():
			return
		}
	}
}

// revision is the id of the event for a state.
func revision(j warm.Job) string { return strconv.FormatInt(j.Revision, 10) }

// stream writes events. A client that does not read within writeTime ends it.
type stream struct {
	w       io.Writer
	control *http.ResponseController
}

func (s stream) send(text string) error {
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTime)) // the server's connections have deadlines
	if _, err := io.WriteString(s.w, text); err != nil {
		return err
	}
	return s.control.Flush()
}
