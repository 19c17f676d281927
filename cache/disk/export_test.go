package disk

import (
	"context"
	"os"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// Volume is the file system as a store sees it, System that of the product.
type Volume = volume

var System = openSystem

// OpenOn is Open on another volume, at a boot of the machine.
func OpenOn(dir string, o Options, on func(dir string) (Volume, error), boot string) (*Store, error) {
	return openOn(dir, o, on, boot)
}

// WaitChecked waits until the content that was there at the start has been looked at.
func (s *Store) WaitChecked() { <-s.checked }

// Rest rests after n bytes that took some time, at a rate of bytes a second.
func Rest(ctx context.Context, rate int64, n int, took time.Duration) error {
	p := pace{rate: rate}
	return p.rest(ctx, n, took)
}

// BlobPath is the file of content.
func BlobPath(d oci.Digest) (string, error) { return blobPath(d) }

// ReadCold reads and leaves memory as it was; Uncache has the kernel forget a file.
var (
	ReadCold = readCold
	Uncache  = func(f *os.File) { uncache(f, 0, 0) }
)

// FailSyncs has every sync from the n-th on (of one file or folder, or of the file system) fail with err.
func (s *Store) FailSyncs(n int, err error) {
	<-s.checked
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.folder.root = &failSyncs{volume: s.folder.root, n: n, err: err}
}

type failSyncs struct {
	volume
	calls, n int
	err      error
}

func (v *failSyncs) fail() error {
	if v.calls++; v.calls >= v.n {
		return v.err
	}
	return nil
}

func (v *failSyncs) Sync(f *os.File) error {
	if err := v.fail(); err != nil {
		return err
	}
	return v.volume.Sync(f)
}

func (v *failSyncs) SyncFS(dir *os.File) error {
	if err := v.fail(); err != nil {
		return err
	}
	return v.volume.SyncFS(dir)
}
