package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"syscall"
	"time"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/server"
)

const (
	// maxConns bounds the connections of the main listener: 20,000 idle ones cost some 400 MB.
	maxConns = 20_000
	// maxSideConns bounds those of each listener for operators. Streams of events may take admin.MaxStreams of them.
	maxSideConns = admin.MaxStreams + 32
	// ownFiles is how many file descriptors are kept at most for anything but clients' connections: files that are sent
	// or written, upstreams, the listeners for operators. Under a low limit it is half of that.
	ownFiles = 8192
	// fewFiles is a limit on open files below which a busy mirror refuses clients.
	fewFiles = 4096
)

// listeners are the ports of the mirror.
type listeners struct {
	main    net.Listener // for clients
	admin   net.Listener // for operators
	metrics net.Listener // for scrapes; nil: they use the admin listener
}

// open opens the ports. An admin listener that other machines reach needs keys.
func (l *listeners) open(ctx context.Context, c *config.Config, keys admin.Keys) (err error) {
	if l.main, err = listen(ctx, c.Listen, "listen"); err != nil {
		return err
	}
	if l.admin, err = listen(ctx, c.Admin.Listen, "admin.listen"); err != nil {
		return err
	}
	if !keys.Any() && !isLoopback(l.admin.Addr()) {
		return fmt.Errorf("admin.listen: %s is %s here, which other machines may reach, and there is no token; "+
			"set admin.tokenFile or admin.operators, or listen on 127.0.0.1", c.Admin.Listen, l.admin.Addr())
	}
	if c.Metrics.Listen != "" {
		l.metrics, err = listen(ctx, c.Metrics.Listen, "metrics.listen")
	}
	return err
}

// close closes the ports that are open.
func (l *listeners) close() {
	for _, one := range []net.Listener{l.main, l.admin, l.metrics} {
		if one != nil {
			_ = one.Close()
		}
	}
}

// listen opens a port. Its error names the setting and says what to do.
func listen(ctx context.Context, addr, setting string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: port %s is in use by another program, perhaps another mirror; "+
			"stop it or choose another port: %w", setting, addr, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s: %s is not an address of this machine; write one that it has, or leave out the host "+
			"for all of them: %w", setting, addr, err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s: %s needs a privilege that this process lacks; "+
			"choose a port above 1023: %w", setting, addr, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w; write an address of this machine, as in 127.0.0.1:5000", setting, err)
	}
	return l, nil
}

// isLoopback reports whether a listener can be reached from this machine alone. It goes by the address that was bound,
// since a name such as localhost may mean another one.
func isLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// hostNames are the names of a listener on the operator's side: its configured host, and those of admin.hosts.
func hostNames(c *config.Config, listen string) []string {
	list := slices.Clone(c.Admin.Hosts)
	if host, _, err := net.SplitHostPort(listen); err == nil && host != "" {
		list = append(list, host)
	}
	return list
}

// serveSide serves a listener for operators. Their connections are taken from those that are kept from clients. The server has
// no write timeout, since a profile may take long.
func serveSide(l net.Listener, h http.Handler, t *tls.Config, log *slog.Logger, ended chan<- error) *http.Server {
	s := &http.Server{
		Handler: h, TLSConfig: t, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), ConnState: server.TrackConnections,
	}
	limited := server.Listen(l, server.ListenOptions{Limit: maxSideConns, Log: log})
	go func() { ended <- serveOn(s, limited) }()
	return s
}

// serveOn serves a listener, by TLS where the server has a configuration of it.
func serveOn(s *http.Server, l net.Listener) error {
	if s.TLSConfig != nil {
		return s.ServeTLS(l, "", "")
	}
	return s.Serve(l)
}

// connections is how many connections clients may have, by the process's limit on open files. The Go runtime has raised the
// soft limit to the hard one, for this process and not for programs that it starts.
func connections(log *slog.Logger) int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		log.Warn("cannot read the limit on open files", "error", err)
		return maxConns
	}
	n := within(uint64(limit.Cur))
	if limit.Cur < fewFiles {
		log.Warn("the limit on open files is low, and limits the connections of clients; raise it (LimitNOFILE, ulimit -n)",
			"limit", limit.Cur, "allowed", n)
	}
	return n
}

// within is how many connections fit into a limit on open files.
func within(files uint64) int {
	return int(max(1, min(maxConns, files-min(files/2, ownFiles))))
}
