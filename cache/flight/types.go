package flight

import (
	"context"
	"io"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// Want is a range of a blob in bytes: [From, To). To is -1 for the end of a blob whose size is not known yet.
type Want struct {
	From, To int64
	// Size is that of the whole blob in bytes; 0: not known. By it a source tells a request for the whole blob, which has
	// no Range header, from one for its first part.
	Size int64
	// Part says that these bytes are wanted by themselves: a source that can only send the blob from its beginning
	// answers with an error, and another fetch brings them.
	Part bool
	// By is when the readers that wait for the first of these bytes give up; zero, or past: not known.
	By time.Time
	// Client is the client for which these bytes are fetched first: that of the Source.
	Client string
	// Needs returns the clients that wait for the next bytes now, at most a few of them. None: all readers have unread
	// bytes, so the transfer may pause. Nil: Client always waits.
	Needs func() []string
	// Live reports whether a client reads the blob, or was the last reader to leave. False: background work alone wants the bytes.
	// It may change while the fetch runs. Nil: a client reads it.
	Live func() bool
	// Joined is closed when the first client joins: Live is true then. Nil: it never is.
	Joined <-chan struct{}
}

// Body is a running transfer of the wanted range, and of no other bytes.
type Body interface {
	io.ReadCloser
	Size() int64  // of the whole blob in bytes; -1: the upstream did not say
	Host() string // that sends the bytes, after redirects
}

// Extender is implemented by bodies that may continue behind the range that was wanted.
type Extender interface {
	// Extend has the body continue to the blob's end where the source sends that anyway, because it does not support
	// ranges. It reports whether the body does. It is called before the first Read.
	Extend() bool
}

// Source is one reader's way to the blob: an upstream, a repository and a credential. Every reader brings its own, so
// that a reader that is denied fails alone.
type Source struct {
	Key string // readers with equal Keys share the result of a fetch
	// Upstream is the name of the upstream. The group remembers by it how many connections have paid off. Empty: nothing is
	// remembered.
	Upstream string
	// Client is the name of the client that the source belongs to, its address for example, for limits by client. Empty: no
	// such limit applies.
	Client string
	// Background says that no client waits for this reader, which is of use only if the blob is stored: it counts for nothing among
	// the Needs of the flight, and its download neither goes on without it nor bypasses a spool that fails.
	Background bool
	// Fetch opens the range. It returns once the source has agreed to send the bytes. It repairs broken transfers; its
	// error, and an error of the body, are final for this Key. The context ends with the flight's fetch, not with a client.
	Fetch func(ctx context.Context, w Want) (Body, error)
	// Wrong is called when the digest of a blob is wrong whose bytes came by this Key alone: with the error that readers
	// get, before they get it, and also where no reader is left. Nil: it is not called. It must not call the flight.
	Wrong func(err error)
	// Open says that this source needs no login: every client may see the bytes.
	Open bool
	// Whole is called when the blob is complete and right, before it can be found in the store. open says that every byte of
	// it came by sources that are Open. Nil: it is not called. It must not call the flight.
	Whole func(size int64, open bool)
}

// Spool is where a flight writes: sparse, local, in any order, read while written. Commit and Discard end it; readers
// that are open then stay valid.
type Spool interface {
	io.ReaderAt
	io.WriterAt
	// Commit makes the content visible under its digest. The caller has verified size and digest. Reads of the
	// spool stay possible.
	Commit(d oci.Digest, size int64) error
	// Open gives a reader a file position of its own, so that the kernel copies from the page cache to the socket. The Object
	// reads the bytes that are written so far. Where it returns an error, readers use ReadAt.
	Open() (Object, error)
	// Park says that no write follows for a while, so that room that is reserved ahead of the writes can be given back. A
	// later write reserves it again.
	Park()
	// Keep has the bytes in the spool outlive Discard, which still follows, and the process, if that stops in order. The
	// next process may have them back with r. After an error the spool is as before.
	Keep(r Rest) error
	// Discard ends the spool: content that is not committed is removed, files are closed. The flight always calls it last,
	// once its last reader has left.
	Discard() error
}

// Object is content that can be read from any offset. That of a disk store embeds *os.File, which keeps sendfile; it must
// not be wrapped again.
type Object interface {
	io.ReadSeekCloser
	io.ReaderAt
	Size() int64 // bytes
}
