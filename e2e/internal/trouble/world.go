package trouble

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
)

// World is where scenes play: registries, a DNS server, and a mirror that knows no other one. Nothing in it leaves the
// machine.
type World struct {
	Dir string

	dns    *nameserver // nil: names are not looked up, registries have addresses
	mu     sync.Mutex  // guards what follows
	ends   []func()
	mirror string // its HOST:PORT
}

// NewWorld makes one with its files in a folder, until Close. Without root there are no names, and
// registries have addresses.
func NewWorld(dir string) (*World, error) {
	if os.Geteuid() != 0 {
		return &World{Dir: dir}, nil
	}
	dns, err := serveNames()
	if err != nil {
		return nil, err
	}
	return &World{Dir: dir, dns: dns}, nil
}

// Close ends all that was made in it.
func (w *World) Close() {
	w.mu.Lock()
	ends := w.ends
	w.ends = nil
	w.mu.Unlock()
	for _, end := range slices.Backward(ends) {
		end()
	}
	if w.dns != nil {
		w.dns.close()
	}
}

func (w *World) atEnd(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends = append(w.ends, f)
}

// Mirror runs a mirror whose upstreams are those of the places. o is the rest of its options.
func (w *World) Mirror(ctx context.Context, places []*Place, o mirrord.Options) (*mirrord.Mirror, error) {
	var upstreams, rules strings.Builder
	for _, p := range places {
		if p.Upstream != "" {
			fmt.Fprintf(&upstreams, "%s: {%s}\n", p.Host, p.Upstream)
		}
		if p.Allowed != "" {
			fmt.Fprintf(&rules, "  - {who: [anonymous], pull: [%q]}\n", p.Host+"/"+p.Allowed)
		}
	}
	o.Upstreams = upstreams.String()
	if rules.Len() > 0 {
		o.More += "\nrules:\n" + rules.String()
	}
	if w.dns != nil {
		var err error
		if o.Resolver, err = w.dns.resolvConf(w.Dir); err != nil {
			return nil, err
		}
	}
	o.Env = append(o.Env, "NO_PROXY=*", "no_proxy=*", "GODEBUG=netdns=go") // its names are ours alone
	m, err := mirrord.Launch(ctx, o)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.mirror = m.Host
	w.mu.Unlock()
	w.atEnd(func() { m.End() })
	return m, nil
}

// origin runs a scripted registry.
func (w *World) origin(o origin.Options) (*origin.Origin, error) {
	g, err := origin.New(o)
	if err != nil {
		return nil, err
	}
	w.atEnd(g.Close)
	return g, nil
}

// file writes one and returns its path.
func (w *World) file(name string, content []byte, mode os.FileMode) (string, error) {
	path := filepath.Join(w.Dir, name)
	return path, os.WriteFile(path, content, mode)
}

// listen accepts connections and hands them to serve, which closes them.
func (w *World) listen(serve func(net.Conn)) (port int, err error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0") //nolint:noctx // on loopback
	if err != nil {
		return 0, err
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { defer func() { _ = c.Close() }(); serve(c) })
		}
	})
	w.atEnd(func() { _ = l.Close(); running.Wait() })
	return l.Addr().(*net.TCPAddr).Port, nil
}

// hangUp reads something and closes: what a filter that does not like a server name does.
func (w *World) hangUp() (port int, err error) {
	return w.listen(func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) })
}

// refusingProxy answers every CONNECT with a status.
func (w *World) refusingProxy(status int) (port int, err error) {
	return w.listen(func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nContent-Length: 0\r\n\r\n", status, http.StatusText(status))
		}
	})
}

// relay leads to the mirror itself.
func (w *World) relay() (port int, err error) {
	return w.listen(func(c net.Conn) {
		w.mu.Lock()
		to := w.mirror
		w.mu.Unlock()
		m, err := net.Dial("tcp", to) //nolint:noctx // on loopback
		if err != nil {
			return
		}
		var back sync.WaitGroup
		back.Go(func() { _, _ = io.Copy(c, m); _ = c.Close() })
		_, _ = io.Copy(m, c)
		_ = m.Close()
		back.Wait()
	})
}

// closedPort is one where nothing listens, until Close.
func (w *World) closedPort() (port int, err error) {
	fd, port, err := bound()
	if err == nil {
		w.atEnd(func() { _ = unix.Close(fd) })
	}
	return port, err
}

// blackHole is a port that takes no connection and does not refuse any: its queue is full, so what comes is dropped, as
// a firewall does.
func (w *World) blackHole() (port int, err error) {
	fd, port, err := bound()
	if err != nil {
		return 0, err
	}
	w.atEnd(func() { _ = unix.Close(fd) })
	if err := unix.Listen(fd, 0); err != nil {
		return 0, err
	}
	for range 2 { // its queue holds one more than it was told
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return 0, err
		}
		w.atEnd(func() { _ = unix.Close(c) })
		err = unix.Connect(c, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
		if err != nil && !errors.Is(err, syscall.EINPROGRESS) {
			return 0, err
		}
	}
	return port, nil
}

// bound is a socket with a port of its own that does not listen.
func bound() (fd, port int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, 0, err
	}
	if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		_ = unix.Close(fd)
		return -1, 0, err
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		_ = unix.Close(fd)
		return -1, 0, err
	}
	return fd, at.(*unix.SockaddrInet4).Port, nil
}
