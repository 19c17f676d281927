package app

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/registrymirror/mirror/admin"
)

// standaloneWait is how long a mirror without listeners waits for another one that has the folder. The other one most likely
// serves, and goes on.
const standaloneWait = 2 * time.Second

// Standalone runs a mirror that listens on no port while work runs. dial connects to its admin API. If another mirror has the data
// folder the error is a *disk.LockedError; else it is that of work, or of the mirror. Schedules and the cluster are left alone.
func Standalone(ctx context.Context, o Options, work func(dial func(context.Context) (net.Conn, error)) error) (err error) {
	c := *o.Config
	c.Kubernetes.Feed = false
	a := newApp(o)
	defer func() { err = cmp.Or(err, a.close()) }()
	if err := a.folder.open(ctx, &c, standaloneWait, a.log); err != nil {
		return err
	}
	l := &memoryListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	a.listeners.admin = l
	if err := a.assemble(&c, files{}); err != nil {
		return err
	}
	_, stop := a.background(ctx)
	a.ready.Store(true)
	options := a.adminOptions(&c)
	options.Loopback = true // it is in memory: this process alone reaches it
	s := &http.Server{Handler: admin.New(options), ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l) // until Close
	}()
	err = work(l.dial)
	_ = s.Close()
	<-served
	return cmp.Or(err, stop())
}

// memoryListener is a listener whose connections are made by dial alone.
type memoryListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once // closes closed
}

func (l *memoryListener) dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *memoryListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *memoryListener) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }
