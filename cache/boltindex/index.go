package boltindex

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/internal/point"
	"github.com/registrymirror/mirror/oci"
)

const (
	// most is how many keys one transaction takes: enough that the syncs don't show, few enough for its memory.
	most = 20_000
	// page is how many records All copies out at once: no transaction is open while the caller looks at them.
	page = 4096
)

var bucket = []byte("access")

// Index is a cache.Index on a file. Make one with Open; it is safe for concurrent use until Close.
type Index struct {
	path string
	log  *slog.Logger

	mu     sync.RWMutex // guards what follows. Write: to exchange them; read: to use them
	db     *bolt.DB     // nil: there is no file for now
	file   *os.File     // that db has open
	closed bool
}

var _ cache.Index = (*Index)(nil)

// Open opens the index, and makes it if it is not there. Damage is not an error; neither is a disk that takes no write.
// The error says that somebody else has the file. A nil log discards.
func Open(path string, log *slog.Logger) (*Index, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	x := &Index{path: path, log: log}
	err := x.open()
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("open index %s: %w", path, err)
	}
	if err != nil {
		log.Warn("index can't be opened; the cache works without, and tries again when it next writes", "path", path,
			"err", err)
	}
	return x, nil
}

// Close closes the file.
func (x *Index) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	if x.db == nil {
		return nil
	}
	err := guard(x.db.Close)
	if err != nil {
		_ = x.file.Close()
		err = fmt.Errorf("close index %s: %w", x.path, err)
	}
	x.db, x.file = nil, nil
	return err
}

// Write records accesses and removals. cache.ErrReset in its error says that the file was found damaged and that all
// that was recorded is gone; the batch is in the new file.
func (x *Index) Write(used []cache.Access, removed []oci.Digest) error {
	keys, values, err := encode(used, removed)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return fmt.Errorf("write index %s: %w", x.path, os.ErrClosed)
	}
	if x.db == nil {
		if err := x.open(); err != nil {
			return fmt.Errorf("open index %s: %w", x.path, err)
		}
	}
	err = x.put(keys, values)
	if !damaged(err) {
		if err != nil {
			return fmt.Errorf("write index %s: %w", x.path, err)
		}
		return nil
	}
	if rerr := x.restart(err); rerr != nil {
		return fmt.Errorf("write index %s: %w: %w", x.path, err, rerr)
	}
	if err := x.put(keys, values); err != nil {
		return fmt.Errorf("write index %s: %w: %w", x.path, cache.ErrReset, err)
	}
	return fmt.Errorf("write index %s: %w", x.path, cache.ErrReset)
}

// put writes keys with their values, nil to delete, in transactions of bounded size.
func (x *Index) put(keys, values [][]byte) error {
	for len(keys) > 0 {
		n := min(len(keys), most)
		point.Hit("index/tx")
		err := guard(func() error {
			return x.db.Update(func(tx *bolt.Tx) error {
				b := tx.Bucket(bucket)
				for i, k := range keys[:n] {
					var err error
					if values[i] == nil {
						err = b.Delete(k)
					} else {
						err = b.Put(k, values[i])
					}
					if err != nil {
						return err
					}
				}
				point.Hit("index/in-tx")
				return nil
			})
		})
		if err != nil {
			return err
		}
		point.Hit("index/committed")
		keys, values = keys[n:], values[n:]
	}
	return nil
}

// All yields what is recorded. It holds nothing while the caller looks: what is written meanwhile may or may not be
// among it.
func (x *Index) All() iter.Seq2[cache.Access, error] {
	return func(yield func(cache.Access, error) bool) {
		var last []byte
		for {
			keys, values, err := x.read(last)
			if err != nil {
				yield(cache.Access{}, fmt.Errorf("read index %s: %w", x.path, err))
				return
			}
			for i, k := range keys {
				a, ok := decode(k, values[i])
				if ok && !yield(a, nil) {
					return
				}
			}
			if len(keys) < page {
				return
			}
			last = keys[len(keys)-1]
		}
	}
}

// read copies out the records behind a key.
func (x *Index) read(last []byte) (keys, values [][]byte, err error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.db == nil {
		return nil, nil, nil
	}
	err = guard(func() error {
		return x.db.View(func(tx *bolt.Tx) error {
			c := tx.Bucket(bucket).Cursor()
			k, v := c.First()
			if last != nil {
				if k, v = c.Seek(last); bytes.Equal(k, last) {
					k, v = c.Next()
				}
			}
			for prev := last; k != nil && len(keys) < page; k, v = c.Next() {
				if bytes.Compare(prev, k) >= 0 {
					return &damage{errors.New("keys are not in order")} // would go on for ever
				}
				prev = bytes.Clone(k)
				keys, values = append(keys, prev), append(values, bytes.Clone(v))
			}
			return nil
		})
	})
	return keys, values, err
}

// The first byte of a key is the algorithm, the rest the hash.
var algorithms = map[byte]digest.Algorithm{1: digest.SHA256, 2: digest.SHA512}

func encode(used []cache.Access, removed []oci.Digest) (keys, values [][]byte, err error) {
	keys, values = make([][]byte, 0, len(used)+len(removed)), make([][]byte, 0, len(used)+len(removed))
	for _, d := range removed {
		k, err := key(d)
		if err != nil {
			return nil, nil, err
		}
		keys, values = append(keys, k), append(values, nil)
	}
	for _, a := range used {
		k, err := key(a.Digest)
		if err != nil {
			return nil, nil, err
		}
		v := binary.BigEndian.AppendUint32(nil, uint32(max(0, a.Used.Unix()/60)))
		keys, values = append(keys, k), append(values, binary.BigEndian.AppendUint64(v, uint64(a.Size)))
	}
	return keys, values, nil
}

func key(d oci.Digest) ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("index %q: %w", string(d), err)
	}
	for b, a := range algorithms {
		if d.Algorithm() == a {
			return hex.AppendDecode([]byte{b}, []byte(d.Encoded()))
		}
	}
	return nil, fmt.Errorf("index %q: only sha256 and sha512 are kept", string(d))
}

// decode reads a record. What is not one is not there.
func decode(k, v []byte) (cache.Access, bool) {
	if len(k) == 0 || len(v) != 12 {
		return cache.Access{}, false
	}
	a, ok := algorithms[k[0]]
	if !ok || len(k) != 1+a.Size() {
		return cache.Access{}, false
	}
	size := int64(binary.BigEndian.Uint64(v[4:]))
	if size < 0 {
		return cache.Access{}, false
	}
	return cache.Access{
		Digest: digest.NewDigestFromBytes(a, k[1:]),
		Size:   size,
		Used:   time.Unix(int64(binary.BigEndian.Uint32(v))*60, 0).UTC(),
	}, true
}
