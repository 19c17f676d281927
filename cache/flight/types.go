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
	// Size is that of the whole blob in bytes where it is known, else 0. With it a source can tell the whole blob, which
	// is asked for without a Range header, from its first part.
	Size int64
	// Part says that these bytes are wanted by themselves: a source that could only send the blob from its beginning
	// answers with an error instead. Others bring them then.
	Part bool
	// By is when those who wait for the beginning of these bytes give up; zero, or over: not known.
	By time.Time
	// Client is whom these bytes are fetched for first: the Client of the Source.
	Client string
	// Live reports whether a person waits for these bytes. It may turn true while the fetch runs: a pull joins a
	// warm-up. Nil means true.
	Live func() bool
	// Needs are the clients that wait for the next bytes now, at most a few of them. None: all readers have more to read
	// than they have read, so that the transfer may rest. Nil means Client.
	Needs func() []string
}

// Body is a running transfer of the wanted range, and of nothing but it.
type Body interface {
	io.ReadCloser
	Size() int64  // of the whole blob in bytes, -1 if the upstream did not say
	Host() string // that the bytes come from, after redirects
}

// Extender is implemented by bodies that may go on behind the range that was wanted.
type Extender interface {
	// Extend has the body go on to the blob's end, where that comes anyway: the source knows no ranges. It reports
	// whether it does. It comes before the first Read.
	Extend() bool
}

// Source is one reader's way to the blob: an upstream, a repository and a credential. Every reader brings its own,
// so that one who is denied fails alone.
type Source struct {
	Key  string // readers with equal keys share the fate of a fetch
	Live bool   // a client waits, as against a warm-up
	// Client is the name of the client that the source belongs to, its address for example, for the bounds that each client
	// has. Empty: no such bound applies.
	Client string
	// Fetch opens the range. It answers only once the source has agreed to send the bytes. It heals what breaks
	// underneath; its error, and an error of the body, are final for this Key. The context ends with the flight's
	// fetch, not with a client.
	Fetch func(ctx context.Context, w Want) (Body, error)
	// Wrong, where it is set, is told that the blob whose bytes came by this Key, and by no other, has another digest:
	// before its readers are, with the error that they get, and also where no reader is left. It must not call the flight.
	Wrong func(err error)
	// Open says that this source needs no login: the bytes may be shown to every client.
	Open bool
	// Whole, where it is set, is told that the blob is whole and right, before it can be found in the store. open says that
	// every byte of it came by sources that are Open. It must not call the flight.
	Whole func(size int64, open bool)
}

// Spool is where a flight writes: sparse, local, in any order, read while written. Commit and Discard end it; readers
// that are open by then stay valid.
type Spool interface {
	io.ReaderAt
	io.WriterAt
	// Commit makes the content visible under its digest. The caller has verified size and digest. Reads of the
	// spool stay possible.
	Commit(d oci.Digest, size int64) error
	// Discard ends the spool: what is not committed is removed, what it holds open is released. The flight calls it
	// last in any case, once its last reader has left.
	Discard() error
}

// Parker is implemented by spools that hold room ahead of what is written.
type Parker interface {
	// Park says that nothing is written any more, until it is again: room that is held ahead can be given back.
	Park()
}

// Object is content that can be read from any offset. The one a disk store returns embeds *os.File, which keeps
// sendfile; nobody wraps it again.
type Object interface {
	io.ReadSeekCloser
	io.ReaderAt
	Size() int64 // bytes
}

// Opener is implemented by spools that can give each reader a file position of its own, so that the kernel copies from
// the page cache to the socket. The Object reads whatever is written so far.
type Opener interface {
	Open() (Object, error)
}
