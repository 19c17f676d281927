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
