package pull

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/transfer"
)

// showing records that the repository's registry has a blob, which a source's download shows. It is recorded as the download
// begins, and taken back where the content turns out to be something else.
type showing struct {
	b blob

	mu sync.Mutex // guards none, and orders the records
	// none says that the registry has not shown the blob: it sent something else, or nothing.
	none bool
}

// begin records that the registry sends the blob: in memory, for the readers that wait for this. On disk it is recorded with
// the whole blob, and sooner where that takes long.
func (s *showing) begin(body *transfer.Body) flight.Body {
	b := s.b
	b.p.catalog.Show(b.ref.Repo, b.ref.Digest, b.st.by())
	b.p.failures.shown(b.key)
	size := body.Size()
	if b.want >= 0 && size != b.want { // the registry contradicts itself or a manifest: the download fails
		size = -1
	}
	b.p.inBackground(func(ctx context.Context) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.none {
			b.learn(ctx, size)
		}
	})
	return &shownBody{body, s}
}

// shownBody is a body that is watched for an end which shows that it was something else. The flight tells of another digest.
type shownBody struct {
	*transfer.Body
	shows *showing
}

func (b *shownBody) Read(p []byte) (int, error) {
	n, err := b.Body.Read(p)
	if e, ok := errors.AsType[*fault.ContentError](err); ok && e.Kind == fault.ContentEncoding {
		b.shows.wrong()
		b.shows.b.forgetSize()
	}
	return n, err
}

// wrong takes back that the registry has shown the blob, and the size that it gave.
func (s *showing) wrong() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.none = true
	b := s.b
	if err := b.p.catalog.Unshow(b.ref.Repo, b.ref.Digest); err != nil {
		b.p.log.Warn("cannot take back the record of a blob", "repository", b.ref.Repo.String(), "digest", b.ref.Digest,
			"error", err)
	}
	b.forgetSize()
}

// whole records, before the blob can be found in the cache, that it came from this repository's registry: after a crash
// between the two the upstream is perhaps down. open says that all of it came without a login.
func (s *showing) whole(size int64, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.none {
		return
	}
	ctx, b := context.Background(), s.b
	b.learn(ctx, size)
	if !open {
		return
	}
	if err := b.p.catalog.Open(b.ref.Digest); err != nil {
		b.p.log.WarnContext(ctx, "cannot record a blob; its registry is asked again", "repository", b.ref.Repo.String(),
			"digest", b.ref.Digest, "error", err)
	}
}

// emptyConfig is the content of an empty config. Tools refer to it by its digest, and some registries do not have it. Its
// bytes are not secret, so a manifest that names it, in a repository that may be read, is enough; and where the registry
// lacks it, nothing is recorded of the repository.
const emptyConfig = "{}"

var emptyConfigs = [...]oci.Digest{digest.SHA256.FromString(emptyConfig), digest.SHA512.FromString(emptyConfig)}

func isEmptyConfig(d oci.Digest) bool { return slices.Contains(emptyConfigs[:], d) }

type emptyConfigBody struct{ io.ReadCloser }

// emptyConfig is the body of the empty config, which the registry has not shown.
func (s *showing) emptyConfig(w flight.Want) flight.Body {
	s.mu.Lock()
	s.none = true
	s.mu.Unlock()
	to := int64(len(emptyConfig))
	if w.To >= 0 {
		to = min(w.To, to)
	}
	return emptyConfigBody{io.NopCloser(strings.NewReader(emptyConfig[min(w.From, to):to]))}
}

func (emptyConfigBody) Size() int64  { return int64(len(emptyConfig)) }
func (emptyConfigBody) Host() string { return "" }
