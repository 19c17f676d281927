package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/config"
)

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" { // a script of a test runs the command
		main()
	}
	goleak.VerifyTestMain(m)
}

// taker tells how each reload ended: what the files held that the configuration names, or which error there was. It
// refuses a configuration that names a file which isn't there.
type taker struct {
	end  <-chan struct{}
	told chan string
}

func (a taker) tell(text string) {
	select {
	case a.told <- text:
	case <-a.end:
	}
}

func (a taker) Reload(c *config.Config) error {
	text := "drain " + c.Drain.String()
	for _, f := range c.Files() {
		b, err := os.ReadFile(f)
		if err != nil {
			a.tell("refused, no " + filepath.Base(f))
			return err
		}
		text += fmt.Sprintf(", %s %s", filepath.Base(f), b)
	}
	a.tell(text)
	return nil
}

func (a taker) NotReloaded(err error) {
	if _, ok := errors.AsType[*config.Invalid](err); ok {
		a.tell("invalid")
		return
	}
	a.tell(err.Error())
}

// want waits for a reload that ends so. Others may come before: a change that is seen twice is reloaded twice.
func (a taker) want(t *testing.T, want string) {
	t.Helper()
	var others []string
	soon := time.After(20 * time.Second) // well before the watch looks by itself, after 30 s
	for {
		select {
		case got := <-a.told:
			if got == want {
				return
			}
			others = append(others, got)
		case <-soon:
			t.Fatalf("%q did not come, but %q", want, others)
		}
	}
}

// reloading runs reload over a file that names one upstream, and returns what puts files into its folder.
func reloading(t *testing.T) (a taker, put func(name, text string)) {
	t.Helper()
	file := configFile(t, plain)
	text, err := config.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse(file, text.Data, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	a = taker{end: ctx.Done(), told: make(chan string)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		reload(ctx, a, file, c, text, slog.New(slog.DiscardHandler), nil, nil)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return a, func(name, text string) {
		path := filepath.Join(filepath.Dir(file), name)
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path+"~", []byte(text), 0o600),
			os.Rename(path+"~", path)) // whole at once, as from an editor
		if err != nil {
			t.Fatal(err)
		}
	}
}

const (
	plain  = "upstreams: {ghcr.io: {}}\n"
	withCA = "upstreams: {ghcr.io: {endpoints: [{url: 'https://ghcr.io', ca: ca/corp.crt}]}}\n"
)

// Files that a reload names are watched from then on, wherever they are.
func TestReloadWatchesWhatItNames(t *testing.T) {
	t.Parallel()
	a, put := reloading(t)
	put("ca/corp.crt", "one")
	put("config.yaml", withCA)
	a.want(t, "drain 1m0s, corp.crt one")
	put("ca/corp.crt", "two")
	a.want(t, "drain 1m0s, corp.crt two")
	put("keys/token", "one")
	put("config.yaml", withCA+"admin: {tokenFile: keys/token}\n")
	a.want(t, "drain 1m0s, token one, corp.crt two")
	put("keys/token", "two")
	a.want(t, "drain 1m0s, token two, corp.crt two")
	put("ca/corp.crt", "three")
	a.want(t, "drain 1m0s, token two, corp.crt three")
	put("config.yaml", plain)
	a.want(t, "drain 1m0s")
}

// A refused reload is tried again when a missing file appears, and when a mistake is corrected.
func TestReloadTriesAgain(t *testing.T) {
	t.Parallel()
	a, put := reloading(t)
	put("ca/other", "")
	put("config.yaml", withCA)
	a.want(t, "refused, no corp.crt")
	put("ca/corp.crt", "one")
	a.want(t, "drain 1m0s, corp.crt one")
	put("config.yaml", "listne: x\n")
	a.want(t, "invalid")
	put("ca/corp.crt", "two")
	put("config.yaml", withCA)
	a.want(t, "drain 1m0s, corp.crt two")
}

// Without a change, nothing is reloaded.
func TestReloadOfNothing(t *testing.T) {
	t.Parallel()
	a, put := reloading(t)
	put("other", "x")
	put("config.yaml", plain+"drain: 2m\n")
	if got := <-a.told; got != "drain 2m0s" {
		t.Errorf("the first reload is %q", got)
	}
}
