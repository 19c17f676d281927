package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/registrymirror/mirror/internal/regular"
)

// maxSecretFile is the largest file with a password or token, in bytes. Service-account keys have some thousands.
const maxSecretFile = 64 << 10

// Env is a credential whose password is in an environment variable.
type Env struct {
	Name     string
	Username string
	Variable string
	Log      *slog.Logger // for a variable that is empty; nil: discard
}

// Credential reads the variable.
func (e Env) Credential(context.Context) (Credential, error) {
	text := strings.TrimRight(os.Getenv(e.Variable), "\r\n")
	if text == "" {
		return Credential{}, fmt.Errorf("credential %s: environment variable %s is empty; set it to the password",
			e.Name, e.Variable)
	}
	return Credential{Name: e.Name, Username: e.Username, Password: NewSecret(text)}, nil
}

// Status says whether the variable is set.
func (e Env) Status() Status {
	s := Status{Name: e.Name, Kind: "env", State: StateOK}
	if _, err := e.Credential(context.Background()); err != nil {
		s.State, s.LastError = StateFailing, err.Error()
	}
	return s
}

// Run logs a variable that is empty, before a pull needs it.
func (e Env) Run(ctx context.Context) error {
	if _, err := e.Credential(ctx); err != nil {
		orDiscard(e.Log).Warn("the variable with the password of a credential is empty: only public images are pulled without it",
			"credential", e.Name, "name", e.Variable, "error", err)
	}
	return nil
}

// File is a credential whose password is the content of a file, without the line end. The file is read again once it
// has changed, through symbolic links too, as in a mounted Kubernetes secret. While it can't be read, the password
// that was read last stays in use and Status says what is wrong. Use it by pointer.
type File struct {
	Name     string
	Username string
	Path     string       // absolute, since it stands in messages
	Log      *slog.Logger // for a file that can't be read, and can be again; nil: discard

	mu    sync.Mutex  // guards what follows; held while the file is read
	seen  os.FileInfo // the file when it was read; nil: it has to be read
	read  time.Time   // when the password in use was read; zero: never
	text  Secret
	err   error     // of the last look
	errAt time.Time // when err first occurred, or became another one
	since time.Time // when the present state began; zero: the file was not looked at yet
}

// clockTick is how long after a write another write may not change the file's time: a file that is younger than that is read
// again.
const clockTick = 2 * time.Second

// pollEvery is how often Run looks at the file.
const pollEvery = 10 * time.Second

// Credential gives the password as the file has it now.
func (f *File) Credential(context.Context) (Credential, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh()
	if f.text.IsZero() {
		return Credential{}, f.err
	}
	return Credential{Name: f.Name, Username: f.Username, Password: f.text}, nil
}

// Status looks at the file and says how that went. So a file that is missing is never ok, even before the credential is first
// used.
func (f *File) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh()
	s := Status{Name: f.Name, Kind: "file", State: StateOK, Since: f.since, LastRefresh: f.read}
	if f.err != nil {
		s.State, s.LastError, s.LastErrorAt = StateFailing, f.err.Error(), f.errAt
	}
	return s
}

// Run looks at the file every 10 s until the context ends, so that a missing one is logged before a pull needs it.
func (f *File) Run(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		f.mu.Lock()
		f.refresh()
		f.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// refresh reads the file if it has changed. The lock is held.
func (f *File) refresh() {
	now, err := os.Stat(f.Path)
	if err != nil {
		f.fail(err)
		return
	}
	if f.err == nil && f.seen != nil && os.SameFile(f.seen, now) && f.seen.Size() == now.Size() &&
		f.seen.ModTime().Equal(now.ModTime()) && f.read.Sub(now.ModTime()).Abs() > clockTick {
		return
	}
	b, err := regular.Read(f.Path, maxSecretFile)
	text := NewSecret(strings.TrimRight(string(b), "\r\n"))
	if err == nil && text.IsZero() {
		err = errEmpty
	}
	if err != nil {
		f.fail(err)
		return
	}
	read := time.Now()
	if f.err != nil {
		orDiscard(f.Log).Info("the password file of a credential can be read again", "credential", f.Name, "path", f.Path)
	}
	if f.err != nil || f.since.IsZero() {
		f.since = read
	}
	f.seen, f.read, f.text, f.err, f.errAt = now, read, text, nil, time.Time{}
}

var errEmpty = errors.New("file is empty")

// fail notes that the file can't be read. The lock is held.
func (f *File) fail(err error) {
	f.seen = nil
	news := &FileError{Credential: f.Name, Path: f.Path, Kept: !f.text.IsZero(), Err: err}
	if f.err != nil && f.err.Error() == news.Error() {
		return
	}
	now := time.Now()
	if f.err == nil {
		f.since = now
	}
	f.err, f.errAt = news, now
	event := "the password file of a credential can't be read: only public images are pulled until it can"
	if news.Kept {
		event = "the password file of a credential can't be read: the password that was read before stays in use"
	}
	orDiscard(f.Log).Warn(event, "credential", f.Name, "path", f.Path, "error", news)
}

func orDiscard(log *slog.Logger) *slog.Logger { return cmp.Or(log, slog.New(slog.DiscardHandler)) }

// FileError says that the password file of a credential can't be read, and what to do.
type FileError struct {
	Credential string
	Path       string
	Kept       bool // the password that was read before is still used
	Err        error
}

// Error is one line: the credential, the file, the mistake, and what to do.
func (e *FileError) Error() string {
	text := fmt.Sprintf("credential %s: its password file %s ", e.Credential, e.Path)
	switch {
	case errors.Is(e.Err, fs.ErrNotExist):
		text += "does not exist; create it, or correct passwordFile"
	case errors.Is(e.Err, errEmpty):
		text += "is empty; write the password to it"
	case errors.Is(e.Err, fs.ErrPermission):
		text += "can't be read by the mirror's user: permission denied; let that user read it"
	case errors.Is(e.Err, syscall.EISDIR):
		text += "is a folder; name the file in it with passwordFile"
	case regular.Unfit(e.Err):
		text += fmt.Sprintf("can't be read: %v", withoutPath(e.Err))
	default:
		text += fmt.Sprintf("can't be read: %v; correct it, or passwordFile", withoutPath(e.Err))
	}
	if e.Kept {
		text += "; until then the password that was read before is used"
	}
	return text
}

// Unwrap gives the error of the look.
func (e *FileError) Unwrap() error { return e.Err }

// withoutPath is an error of a file without the name of the file.
func withoutPath(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
