package disk

import (
	"os"
	"sync"

	"github.com/registrymirror/mirror/cache"
)

var (
	_ cache.Object        = (*Object)(nil)
	_ cache.CloseNotifier = (*Object)(nil)
	_ cache.Stater        = (*Object)(nil)
)

// Object is a file to read. It embeds the *os.File, so that the kernel copies it to a socket (sendfile).
type Object struct {
	*os.File
	size int64
	once sync.Once
	done func()
}

// Size is the file's size in bytes when it was opened. Of a spool: the size it was made for, or, where
// that is not known, the bytes written so far.
func (o *Object) Size() int64 { return o.size }

// OnClose has f called by the first Close.
func (o *Object) OnClose(f func()) { o.done = f }

// Close closes the file.
func (o *Object) Close() error {
	err := o.File.Close()
	o.once.Do(func() {
		if o.done != nil {
			o.done()
		}
	})
	return err
}
