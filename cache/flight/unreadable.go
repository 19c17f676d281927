package flight

import (
	"cmp"
	"io"
)

// Unreadable is for a copy of stored content to a client that ended early, at off, with err or without one. It returns
// what keeps the content from being read, or nil where it can be, and the client's side is to blame.
func Unreadable(o io.ReaderAt, off int64, err error) error {
	_, perr := o.ReadAt(make([]byte, 1), off)
	if err != nil && !ofFile(err, perr != nil) {
		return nil
	}
	return cmp.Or(perr, err, io.ErrUnexpectedEOF)
}
