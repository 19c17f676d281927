package logging_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/internal/logging"
)

// lines is a log that may be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// take is what was written, and forgets it.
func (l *lines) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

// A client can't fill the disk with log lines, and hides none but those of the same message.
func TestLogLinesAreCapped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out lines
		log, _ := logging.New(&out, "json", "info")
		for i := range 100_000 {
			log.With("upstream", "docker.io").WithGroup("g").Info("pull", "client", fmt.Sprint("n", i))
		}
		log.Warn("an endpoint is down", "endpoint", "https://ghcr.io")
		log.Debug("a step")
		text := out.take()
		if n := strings.Count(text, `"msg":"pull"`); n != 2000 {
			t.Errorf("%d lines were written, want 2000", n)
		}
		if strings.Count(text, "an endpoint is down") != 1 || strings.Contains(text, "suppressed") {
			t.Errorf("another line: %.500s", text[max(0, len(text)-500):])
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if text = out.take(); strings.Count(text, "\n") != 1 || !strings.Contains(text, `"line":"pull","suppressed":98000`) {
			t.Errorf("a minute later: %.500s", text)
		}
		log.Info("pull")
		for range 10 { // a healthy cluster
			time.Sleep(30 * time.Second)
			for range 900 {
				log.Info("pull")
			}
		}
		time.Sleep(2 * time.Minute)
		if text = out.take(); strings.Count(text, `"msg":"pull"`) != 9001 || strings.Contains(text, "suppressed") {
			t.Errorf("%d lines of 9001", strings.Count(text, `"msg":"pull"`))
		}
		for i := range 10_000 { // messages that are not constant are a mistake, and are bounded all the same
			log.Info(fmt.Sprint("odd ", i))
		}
		if n := strings.Count(out.take(), "\n"); n > 2600 {
			t.Errorf("%d lines of 10000 messages", n)
		}
		time.Sleep(2 * time.Minute)
	})
}
