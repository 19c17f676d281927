package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/registrymirror/mirror/internal/coalesce"
)

const (
	// maxKeySet is the size of a set of keys in bytes, and maxKeys how many it may have.
	maxKeySet = 1 << 20
	maxKeys   = 100
	// keysEvery is the least time between two questions for keys, and keysFor how long an answer is used without a further one.
	keysEvery = time.Minute
	keysFor   = 10 * time.Minute
	// keysAtMost is how long keys are used while no further answer comes.
	keysAtMost = 24 * time.Hour
	askTime    = 5 * time.Second
	// leastRSA is the least size of an RSA key in bits.
	leastRSA = 2048
)

// KeySet is a set of keys that does not change: that of a file.
type KeySet []jose.JSONWebKey

// ParseKeys reads a set of keys, JWKS, as kubectl get --raw /openid/v1/jwks prints it. Keys of kinds with which Kubernetes does not
// sign are left out.
func ParseKeys(text []byte) (KeySet, error) {
	if len(text) > maxKeySet {
		return nil, fmt.Errorf("it has more than %d KiB; is it the right file?", maxKeySet>>10)
	}
	var in struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(text, &in); err != nil {
		return nil, errors.New("it is not a set of keys (JWKS); write what kubectl get --raw /openid/v1/jwks prints")
	}
	if len(in.Keys) > maxKeys {
		return nil, fmt.Errorf("it has more than %d keys; is it the right file?", maxKeys)
	}
	var set KeySet
	for _, raw := range in.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(raw) != nil || !k.IsPublic() || k.Use != "" && k.Use != "sig" {
			continue
		}
		switch key := k.Key.(type) {
		case *rsa.PublicKey:
			if key.N.BitLen() >= leastRSA {
				set = append(set, k)
			}
		case *ecdsa.PublicKey:
			set = append(set, k)
		}
	}
	if len(set) == 0 {
		return nil, errors.New("it has no public key that signs tokens; write what kubectl get --raw /openid/v1/jwks prints")
	}
	return set, nil
}

// Find is that of Keys.
func (s KeySet) Find(_ context.Context, id string) ([]jose.JSONWebKey, error) { return s.find(id), nil }

func (s KeySet) find(id string) []jose.JSONWebKey {
	if id == "" {
		return s
	}
	return slices.DeleteFunc(slices.Clone(s), func(k jose.JSONWebKey) bool { return k.KeyID != id })
}

// Beside are keys that are looked for in a file first, then elsewhere.
type Beside struct {
	File   KeySet
	Remote *RemoteKeys
}

// Find is that of Keys.
func (b Beside) Find(ctx context.Context, id string) ([]jose.JSONWebKey, error) {
	if found := b.File.find(id); id != "" && len(found) > 0 {
		return found, nil
	}
	return b.Remote.Find(ctx, id)
}

// RemoteKeys are the keys of a source: a URL, or an API server. They are asked for when the first token comes, every ten minutes while tokens come, and for
// a key that is not among them at most once a minute. It is safe for concurrent use.
type RemoteKeys struct {
	source func(context.Context) ([]byte, error)
	log    *slog.Logger
	asking coalesce.Group[struct{}, KeySet]

	mu    sync.Mutex // guards what follows; a leaf
	set   KeySet
	got   time.Time // when set came
	asked time.Time // when keys were last asked for
	err   error     // of the last question
}

// NewRemoteKeys makes RemoteKeys that nothing has been asked for yet. source gives a set of keys, JWKS, and is believed.
func NewRemoteKeys(source func(context.Context) ([]byte, error), log *slog.Logger) *RemoteKeys {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &RemoteKeys{source: source, log: log}
}

// KeysAt is the source of keys at a URL. transport must check the server's certificate.
func KeysAt(url string, transport http.RoundTripper) func(context.Context) ([]byte, error) {
	c := &http.Client{
		Transport: transport, Timeout: askTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Accept", "application/jwk-set+json, application/json")
		resp, err := c.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s answered %s", req.URL.Host, resp.Status)
		}
		return io.ReadAll(io.LimitReader(resp.Body, maxKeySet+1))
	}
}

// Find is that of Keys.
func (r *RemoteKeys) Find(ctx context.Context, id string) ([]jose.JSONWebKey, error) {
	now := time.Now()
	r.mu.Lock()
	set, age, recent, err := r.set, now.Sub(r.got), !r.asked.IsZero() && now.Sub(r.asked) < keysEvery, r.err
	r.mu.Unlock()
	found := set.find(id)
	switch {
	case age < keysFor && (len(found) > 0 || recent):
		return found, nil
	case recent && set == nil:
		return nil, err
	case !recent:
		next, _, askErr := r.asking.Do(ctx, struct{}{}, r.ask)
		if askErr == nil {
			return next.find(id), nil
		}
		err = askErr
	}
	if set == nil || age > keysAtMost {
		return nil, err
	}
	return found, nil
}

// ask asks for the keys. Where no answer comes the old ones stay.
func (r *RemoteKeys) ask(ctx context.Context) (KeySet, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	set, err := r.fetch(ctx)
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && r.err == nil {
		r.log.WarnContext(ctx, "cannot get the keys that sign service-account tokens; it is tried again each minute while tokens come", "error", err)
	}
	r.asked, r.err = now, err
	if err != nil {
		return nil, err
	}
	r.set, r.got = set, now
	return set, nil
}

func (r *RemoteKeys) fetch(ctx context.Context) (KeySet, error) {
	b, err := r.source(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for the keys of the cluster: %w", err)
	}
	set, err := ParseKeys(b)
	if err != nil {
		return nil, fmt.Errorf("read the keys of the cluster: %w", err)
	}
	return set, nil
}
