package origin_test

import (
	"errors"
	"net"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"github.com/registrymirror/mirror/internal/origin"
)

// A registry that is down refuses connections, also while the test starts programs: a child has the listening socket
// between its fork and its exec.
func TestDownRefuses(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	var forks sync.WaitGroup
	for range 4 {
		forks.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = exec.CommandContext(t.Context(), "true").Run()
				}
			}
		})
	}
	for range 200 {
		g := origin.Start(t, origin.Options{})
		g.Down()
		for range 5 {
			c, err := net.Dial("tcp", g.Host())
			if err == nil {
				_ = c.Close()
			}
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("got %v, want a refusal", err)
			}
		}
	}
	close(stop)
	forks.Wait()
}
