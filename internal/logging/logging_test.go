package logging_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/registrymirror/mirror/internal/logging"
)

func TestLogLines(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	log, level := logging.New(&b, "auto", "warn") // not a terminal: JSON
	log.Info("too fine")
	log.Warn("pull failed", "ref", "a\nb", "took", 1500*time.Millisecond)
	var line map[string]any
	if err := json.Unmarshal(b.Bytes(), &line); err != nil {
		t.Fatalf("not one JSON line: %q", b.String())
	}
	if line["took"] != "1.5s" || line["ref"] != "a\nb" || line["msg"] != "pull failed" {
		t.Errorf("line %v", line)
	}
	b.Reset()
	level.Set(0)
	if log.Info("now it shows"); b.Len() == 0 {
		t.Error("the level was changed, and the line does not show")
	}
	b.Reset()
	text, _ := logging.New(&b, "text", "info")
	if text.Info("plain"); bytes.Contains(b.Bytes(), []byte("\x1b[")) {
		t.Errorf("colour without a terminal: %q", b.String())
	}
}
