//go:build crashpoints

package point

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// variable says where to die. It is taken out of the environment, where readers of settings would not know it.
const variable = "MIRROR_CRASH"

// fatal is the point to die at, and how often the process may still come there, that time included.
var fatal, left = plan(os.Getenv(variable))

func plan(s string) (name string, left *atomic.Int64) {
	left = new(atomic.Int64)
	if s == "" {
		return "", left
	}
	_ = os.Unsetenv(variable) // fails for a bad name alone
	name, count, counted := strings.Cut(s, ":")
	n, err := 1, error(nil)
	if counted {
		n, err = strconv.Atoi(count)
	}
	if err != nil || n < 1 || !slices.Contains(Names, name) {
		fmt.Fprintf(os.Stderr, "%s=%s: write NAME or NAME:N, with a name of point.Names\n", variable, s)
		os.Exit(2)
	}
	left.Store(int64(n))
	return name, left
}

// Hit dies if it is the time for it.
func Hit(name string) {
	if name != fatal || left.Add(-1) != 0 {
		return
	}
	fmt.Fprintf(os.Stderr, "died at %s\n", name)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until the kernel has done it
}
