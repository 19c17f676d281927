package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/admin/client"
	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/warm"
)

const (
	// patience is how long a mirror that a job runs in may be unreachable, as while it restarts: jobs go on after that.
	patience = 2 * time.Minute
	// reconnectEvery is the pause before a broken stream is requested again.
	reconnectEvery = 2 * time.Second
	// noteEvery is how often the progress is noted where there are no bars, repeatEvery the same if nothing has changed. CI systems
	// end a step that is silent for ten minutes.
	noteEvery   = 30 * time.Second
	repeatEvery = 5 * time.Minute
	// longWait is how long a job must wait for something before that is noted.
	longWait = 5 * time.Second
	// minColumns and minRows are those that a terminal must have for bars. Some pretend to be one, and have none.
	minColumns, minRows = 40, 4
)

// states yields the states of a job after a first one as they change, the last one when it has ended, or an error.
func (f *warmFlags) states(ctx context.Context, first admin.WarmJob) iter.Seq2[admin.WarmJob, error] {
	return func(yield func(admin.WarmJob, error) bool) {
		id, whole := first.ID, first
		c, err := f.client()
		if err != nil {
			yield(admin.WarmJob{}, err)
			return
		}
		path := "warm/" + url.PathEscape(id)
		last, heard := "", time.Now()
		for {
			for e, err := range events(ctx, c, path, last) {
				var job admin.WarmJob
				if err == nil {
					err = json.Unmarshal(e.Data, &job)
				}
				if err == nil && job.Partial {
					job, err = completed(ctx, c, path, job, whole)
				}
				refused, _ := errors.AsType[*client.Refused](err)
				switch {
				case err == nil:
					last, heard, whole = e.ID, time.Now(), job
					if !yield(job, nil) || job.State.Over() {
						return
					}
				case ctx.Err() != nil && f.standalone:
					yield(job, &exitError{exitFailed, fmt.Errorf("interrupted; job %s continues with the next mirror on this folder", id)})
					return
				case ctx.Err() != nil:
					yield(job, &exitError{exitFailed, fmt.Errorf("interrupted; job %s goes on: mirror warm show %s --wait waits for it, mirror warm cancel %s ends it", id, id, id)})
					return
				case refused != nil && refused.Code != http.StatusServiceUnavailable:
					yield(job, &exitError{exitFailed, err})
					return
				case time.Since(heard) > patience:
					yield(job, &exitError{exitUnreachable, fmt.Errorf("%w; job %s goes on when the mirror is back: mirror warm show %s --wait", err, id, id)})
					return
				}
			}
			backoff.Wait(ctx, reconnectEvery) // where the context has ended, the next request says so
		}
	}
}

// events yields the events of a job. Where the mirror has too many streams, it is the state of the job now.
func events(ctx context.Context, c *client.Client, path, last string) iter.Seq2[client.Event, error] {
	return func(yield func(client.Event, error) bool) {
		for e, err := range c.Events(ctx, path+"/events", last) {
			if refused, ok := errors.AsType[*client.Refused](err); ok && refused.Code == http.StatusServiceUnavailable {
				e.Data, err = c.Get(ctx, path, nil)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// completed is the state of a job with all of its images, from an event that has only some, and the state before it. The event of a
// large job may leave out images: when the job has ended the mirror is asked for all.
func completed(ctx context.Context, c *client.Client, path string, part, before admin.WarmJob) (admin.WarmJob, error) {
	if part.State.Over() {
		var all admin.WarmJob
		body, err := c.Get(ctx, path, nil)
		if err == nil {
			err = json.Unmarshal(body, &all)
		}
		return all, err
	}
	changed := make(map[string]admin.WarmImage, len(part.Images))
	for _, x := range part.Images {
		changed[x.Image] = x
	}
	part.Images = slices.Clone(before.Images)
	for i, x := range part.Images {
		if now, ok := changed[x.Image]; ok {
			part.Images[i] = now
		}
	}
	return part, nil
}

// follow reports on a job until it has ended. The error says which way it ended.
func (f *warmFlags) follow(cmd *cobra.Command, job admin.WarmJob) error {
	v := f.view(cmd.OutOrStdout(), cmd.ErrOrStderr())
	said := make(map[int]bool)
	report := func() error {
		width := 0
		for _, x := range job.Images {
			width = max(width, utf8.RuneCountInString(x.Image))
		}
		for i, x := range job.Images {
			if said[i] || !x.State.Over() {
				continue
			}
			said[i] = true
			var err error
			switch {
			case f.output == ndjson:
				err = lines(v, []admin.WarmImage{x})
			case !f.output.encoded():
				err = write(v, imageText(x, width))
			}
			if err != nil {
				return err
			}
		}
		v.show(job)
		return nil
	}
	err := report()
	for j, e := range f.states(cmd.Context(), job) {
		if err == nil {
			err = e
		}
		if err != nil {
			break
		}
		job = j
		err = report()
	}
	v.close()
	if err != nil {
		return err
	}
	body, err := json.Marshal(job)
	if err != nil {
		return err
	}
	summary := job
	summary.Images = nil
	if err := printAnswer(cmd.OutOrStdout(), f.output, append(body, '\n'), []admin.WarmJob{summary}, endText(job, f.places)); err != nil {
		return err
	}
	if err := endError(job); err != nil {
		return err
	}
	return f.unread()
}

// endError is the error for a job that has ended otherwise than with all of its images. Nil: all are there.
func endError(j admin.WarmJob) error {
	switch j.State {
	case warm.Done:
		return nil
	case warm.Cancelled:
		return &exitError{exitFailed, fmt.Errorf("job %s was cancelled", j.ID)}
	}
	return &exitError{exitFailed, fmt.Errorf("%d of %s failed", j.Counts[string(warm.Failed)], plural(len(j.Images), "image", "images"))}
}

// view shows how far a job is. What is written to it are lines that stay.
type view interface {
	io.Writer
	show(j admin.WarmJob)
	close()
}

// view is bars where the standard error is a terminal that can show them, and lines elsewhere.
func (f *warmFlags) view(stdout, stderr io.Writer) view {
	terminal, ok := stderr.(*os.File)
	if f.output != ndjson && ok && isTerminal(stderr) && os.Getenv("TERM") != "dumb" {
		if width, height, err := term.GetSize(int(terminal.Fd())); err == nil && width >= minColumns && height >= minRows {
			return newBars(terminal, stdout)
		}
	}
	return newNotes(stdout, stderr)
}

// notes is a view for logs: a line about the progress at an interval, and when the job begins to wait for something.
type notes struct {
	io.Writer
	stderr io.Writer
	ended  chan struct{}
	done   sync.WaitGroup

	mu      sync.Mutex // guards what follows
	job     admin.WarmJob
	speed   speed
	last    string    // line about the progress
	at      time.Time // of that line
	code    string    // of what the job waits for
	waiting time.Time // since when
	noted   string    // code of the last wait that was noted
}

func newNotes(stdout, stderr io.Writer) *notes {
	n := &notes{Writer: stdout, stderr: stderr, ended: make(chan struct{}), at: time.Now()}
	n.done.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-n.ended:
				return
			case <-tick.C:
				n.note()
			}
		}
	})
	return n
}

// note writes the lines that are due.
func (n *notes) note() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if w := n.job.WaitingFor; w != nil && n.code != n.noted && time.Since(n.waiting) >= longWait {
		n.noted = n.code
		fmt.Fprintln(n.stderr, "waiting: "+waitText(w))
	}
	line, passed := progressText(n.job, n.speed.now(n.job)), time.Since(n.at)
	if passed >= repeatEvery || passed >= noteEvery && line != n.last {
		n.last, n.at = line, time.Now()
		fmt.Fprintln(n.stderr, line)
	}
}

func (n *notes) show(j admin.WarmJob) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.job = j
	n.speed.now(j)
	code := ""
	if j.WaitingFor != nil {
		code = j.WaitingFor.Code
	}
	if code != n.code {
		n.code, n.waiting = code, time.Now()
	}
}

func (n *notes) close() {
	close(n.ended)
	n.done.Wait()
}

// speed is how fast the bytes of a job come, over the last ten seconds or so.
type speed struct {
	began, at time.Time
	fetched   int64
	perSecond float64
}

// now takes in the state of a job, and returns the bytes per second.
func (s *speed) now(j admin.WarmJob) float64 {
	const memory = 10 * time.Second
	now, fetched := time.Now(), j.BytesDone-j.BytesCached
	passed := now.Sub(s.at)
	switch {
	case s.at.IsZero():
		s.began, s.at, s.fetched = now, now, fetched
	case passed >= time.Second/2:
		// At first it is the mean of all so far.
		weight := max(1-math.Exp(-passed.Seconds()/memory.Seconds()), passed.Seconds()/now.Sub(s.began).Seconds())
		s.perSecond += weight * (float64(max(fetched-s.fetched, 0))/passed.Seconds() - s.perSecond)
		s.at, s.fetched = now, fetched
	}
	return s.perSecond
}

// progressText is how far a job is, in a line.
func progressText(j admin.WarmJob, perSecond float64) string {
	parts := []string{
		fmt.Sprintf("%d of %s done", j.Counts[string(warm.Done)], plural(len(j.Images), "image", "images")),
	}
	if n := j.Counts[string(warm.Failed)]; n > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", n))
	}
	if j.BytesTotal > 0 {
		parts = append(parts, bytesText(j.BytesDone, j.BytesTotal))
	}
	switch {
	case j.WaitingFor != nil:
		parts = append(parts, "waiting: "+waitText(j.WaitingFor))
	case perSecond >= 1<<10:
		parts = append(parts, amount(int64(perSecond))+"/s")
		if left := time.Duration(float64(j.BytesTotal-j.BytesDone) / perSecond * float64(time.Second)); left > 0 && left < 100*time.Hour {
			parts = append(parts, left.Round(time.Second).String()+" left")
		}
	}
	return strings.Join(parts, ", ")
}
