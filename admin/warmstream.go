package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/registrymirror/mirror/warm"
)

const (
	// MaxStreams is how many streams of events there may be at once. Each is a connection of the listener.
	MaxStreams = 128
	// heartbeat is how often a stream without events sends a comment, so that proxies do not take it for dead.
	heartbeat = 15 * time.Second
	// pauseForImage is how long a stream pauses after an event for each image in it, and maxPause at most: the event of a large
	// job has megabytes.
	pauseForImage = time.Millisecond
	maxPause      = 5 * time.Second
	// writeTime is how long a client may leave an event unread. Then its stream ends.
	writeTime = 30 * time.Second
)

// events streams the states of a job as server-sent events: the state now, then each change. The id of an event is the revision
// of the job; a client that has the present one gets nothing until the next. After the final state the stream ends, and a client
// that has seen that state is answered with 204: then a browser no longer asks.
func (x *warming) events(w http.ResponseWriter, r *http.Request) (any, error) {
	job, err := x.warmer.Job(chi.URLParam(r, "id"))
	if err != nil {
		return nil, noJob(r, err)
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

// stream sends the states of a job until it has ended, the client leaves or does not read, or the mirror stops.
func (x *warming) stream(ctx context.Context, s stream, id, seen string) {
	ctx, cancel := context.WithCancel(ctx)
	latest := make(chan warm.Job, 1) // a state that the client was too slow for is replaced by the next
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		defer close(latest)
		for job, err := range x.warmer.Watch(ctx, id) {
			if err != nil {
				return
			}
			select {
			case <-latest:
			default:
			}
			latest <- job
		}
	})
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	err := s.send("retry: 2000\n\n")
	for err == nil {
		select {
		case job, more := <-latest:
			if !more {
				return
			}
			if revision(job) == seen {
				continue
			}
			if err = s.job(job); err == nil && !job.State.Over() {
				pause(ctx, min(time.Duration(len(job.Images))*pauseForImage, maxPause))
			}
		case <-beat.C:
			err = s.send(":\n\n")
		}
	}
}

// pause waits, or until the context ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
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

func (s stream) job(j warm.Job) error {
	data, err := json.Marshal(viewJob(j, true))
	if err != nil {
		return err
	}
	return s.send("id: " + revision(j) + "\ndata: " + string(data) + "\n\n")
}
