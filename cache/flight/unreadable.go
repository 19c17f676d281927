package flight

import (
	"cmp"
	"io"
)

// Unreadable explains why a copy of stored content to a client ended early, at off, with err or without an error. It
// returns the error by which the content can't be read, or nil where it can be read and the client's side has failed.
func Unreadable(o io.ReaderAt, off int64, err error) error {
	_, perr := o.ReadAt(make([]byte, 1), off)
	if err != nil && !ofFile(err, perr != nil) {
		return nil
	}
	return cmp.Or(perr, err, io.ErrUnexpectedEOF)
}
