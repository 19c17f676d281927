package upstream_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/endpoint"
)

// TestCorruptBlobs has the first of two endpoints send other bytes for each blob: a blob that its reader has found to be wrong
// comes from the second one, and after three of them each blob does, until the first one has been tried again.
func TestCorruptBlobs(t *testing.T) {
	t.Parallel()
	answer := func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) }
	hosts(t, answer, func(t *testing.T, r *upstream.Registry, _ *network) {
		from := func(i int) string {
			d := digestOf([]byte(fmt.Sprint(i)))
			body, err := r.Blob(t.Context(), repo, d, flight.Want{To: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			b, err := io.ReadAll(body)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(string(b), "a") {
				r.Corrupt(repo, d, errors.New("it has another digest"))
			}
			return string(b)
		}
		want := func(i int, want string) {
			t.Helper()
			if got := from(i); got != want {
				t.Errorf("blob %d came from %s, want %s", i, got, want)
			}
		}
		want(1, "a.example")
		want(1, "b.example") // the same one is not asked for the same blob
		want(2, "a.example")
		if s := r.State()[0]; s.State != endpoint.StateUp || s.LastError == "" {
			t.Errorf("after two of them: %+v", s)
		}
		want(3, "a.example")
		if s := r.State()[0]; s.State != endpoint.StateDegraded {
			t.Errorf("after three of them: %+v", s)
		}
		want(4, "b.example")
		time.Sleep(2 * time.Second)
		want(5, "a.example") // a trial
		want(6, "b.example")
		r.Reset()
		want(1, "a.example")
	})
}
