package login_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/upstream/login"
)

// TestMadeUpNamesKeepTokensInUse fills the cache with tokens of names that a client makes up: the token of a repository in
// use stays.
func TestMadeUpNamesKeepTokensInUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tokens := login.NewTokens()
		tokens.Get(t.Context(), "app")
		for i := range 2 * login.MaxTokens {
			time.Sleep(10 * time.Millisecond)
			tokens.Get(t.Context(), fmt.Sprint("made-up", i))
			if i%100 == 0 && tokens.Get(t.Context(), "app") {
				t.Fatalf("the token in use was fetched again, after %d others", i)
			}
			if n := tokens.Held(); n > login.MaxTokens {
				t.Fatalf("%d tokens are kept", n)
			}
		}
	})
}

// TestTokenIsNotOlderThanItsQuestion asks for a token that is new: neither one in the cache nor one that was asked for before counts,
// also where that request still runs. One that came since does.
func TestTokenIsNotOlderThanItsQuestion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tokens := login.NewTokens()
		go tokens.Since(t.Context(), "app", time.Time{}, time.Minute)
		time.Sleep(30 * time.Second)
		begun := time.Now()
		for _, what := range []string{"while another is asked for", "again"} {
			if at, _ := tokens.Since(t.Context(), "app", begun, time.Minute); at.Sub(begun) != 30*time.Second {
				t.Errorf("%s: asked for %s after the question", what, at.Sub(begun))
			}
		}
		time.Sleep(time.Second)
		begun = time.Now()
		if at, fetched := tokens.Since(t.Context(), "app", begun, 0); at.Before(begun) || !fetched {
			t.Errorf("one in the cache counts: asked for %s after the question", at.Sub(begun))
		}
	})
}
