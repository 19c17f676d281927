// Package regular reads files whose kind and size other programs decide: settings, secrets and certificates of an operator, and files of
// a node.
//
// Promise: only regular files are read, and of each at most as many bytes as the caller allows. No call waits for another program: a
// pipe, a socket, a device and a folder in a file's place are a *KindError at once, and a device is not even opened. A larger file is a
// *SizeError. Both say what is there and what to do.
//
// Symbolic links are followed, as the folders of mounted secrets need it; below a root only within it.
//
// It does not help against a file system that does not answer, such as a mount of a server that is gone: the kernel lets no call be given up
// there.
package regular

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/registrymirror/mirror/internal/text"
)

// KindError says that something other than a regular file stands in its place.
type KindError struct {
	Kind string // "a folder", "a pipe", "a socket", "a device", or "a link", where none is followed
}

func (e *KindError) Error() string {
	if e.Kind == folder {
		return "it is a folder, and not a file; name the file in it"
	}
	return "it is " + e.Kind + ", and not a file; write its content to a file"
}

// Is lets a folder be what the operating system calls one.
func (e *KindError) Is(target error) bool { return target == syscall.EISDIR && e.Kind == folder }

// SizeError says that a file is larger than one of its use can be.
type SizeError struct {
	Most int64 // bytes
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("it has more than %s, which no file of its use has; name the right one", text.Size(e.Most))
}

// Unfit reports whether an error is about the kind or the size of a file: another try finds the same.
func Unfit(err error) bool {
	_, kind := errors.AsType[*KindError](err)
	_, size := errors.AsType[*SizeError](err)
	return kind || size
}

const folder = "a folder"

// kindOf is what stands in the place of a regular file; empty: it is one.
func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return ""
	case mode.IsDir():
		return folder
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

// check returns a *KindError for what is not a regular file.
func check(name string, info fs.FileInfo) error {
	if kind := kindOf(info.Mode()); kind != "" {
		return &fs.PathError{Op: "read", Path: name, Err: &KindError{kind}}
	}
	return nil
}

// Open opens a regular file for reading.
func Open(path string) (*os.File, error) {
	info, err := os.Stat(path) // to open a device can do something
	if err != nil {
		return nil, opening(err)
	}
	if err := check(path, info); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // it may be another one by now
	if err != nil {
		return nil, err
	}
	return checked(f, path)
}

// opening is the error of a look at a file as that of opening it, which the caller asked for.
func opening(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return &fs.PathError{Op: "open", Path: e.Path, Err: e.Err}
	}
	return err
}

// checked is an open file, which is closed if it is not a regular one.
func checked[F fs.File](f F, path string) (_ F, err error) {
	info, err := f.Stat()
	if err == nil {
		err = check(path, info)
	}
	if err != nil {
		_ = f.Close()
		return *new(F), err
	}
	return f, nil
}

// Read reads a regular file of at most so many bytes.
func Read(path string, most int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	return all(f, path, most)
}

// KeyPair is tls.LoadX509KeyPair for files of at most so many bytes each.
func KeyPair(cert, key string, most int64) (tls.Certificate, error) {
	c, err := Read(cert, most)
	if err != nil {
		return tls.Certificate{}, err
	}
	k, err := Read(key, most)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(c, k)
}

// all reads a file to its end, and closes it.
func all(f fs.File, path string, most int64) ([]byte, error) {
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		return nil, &fs.PathError{Op: "read", Path: path, Err: &SizeError{most}}
	}
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > most { // files of /proc have no size, and others grow
		return nil, &fs.PathError{Op: "read", Path: path, Err: &SizeError{most}}
	}
	return b, nil
}

// OpenIn is Open for a file of a file system. Of one that is not made by Below the kind is looked up first; between that and the opening it
// may become another.
func OpenIn(fsys fs.FS, name string) (fs.File, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, opening(err)
	}
	if err := check(name, info); err != nil {
		return nil, err
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	return checked(f, name)
}

// ReadIn is Read for a file of a file system, as OpenIn opens it.
func ReadIn(fsys fs.FS, name string, most int64) ([]byte, error) {
	f, err := OpenIn(fsys, name)
	if err != nil {
		return nil, err
	}
	return all(f, name, most)
}

// OpenRoot is os.OpenRoot, which would wait for a writer if the path is that of a pipe.
func OpenRoot(path string) (*os.Root, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, opening(err)
	case !info.IsDir():
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("it is not a folder; name one")}
	}
	return os.OpenRoot(path)
}

// Below is the file system of a root. Nothing but regular files and folders can be opened in it.
func Below(root *os.Root) fs.FS { return below{root.FS().(linksFS), root} }

// linksFS is what root.FS has beside Open. Its ReadDir and ReadFile are left out, since they open whatever is there.
type linksFS interface {
	fs.StatFS
	fs.ReadLinkFS
}

type below struct {
	linksFS
	root *os.Root
}

// Open opens a regular file or a folder.
func (b below) Open(name string) (fs.File, error) {
	fit := func(info fs.FileInfo) error {
		if info.IsDir() {
			return nil
		}
		return check(name, info)
	}
	info, err := b.Stat(name)
	if err != nil {
		return nil, opening(err)
	}
	if err := fit(info); err != nil {
		return nil, err
	}
	f, err := b.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err == nil {
		err = fit(info)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Input opens what is given to a command to be read once: a file, or /dev/stdin and the pipe of a process substitution. A pipe that no
// program has open for writing is empty: the command does not wait for one.
func Input(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}
