package auth

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// maxSecretFile is the largest password file in bytes. Service-account keys have some thousands.
const maxSecretFile = 64 << 10

// Static is the source of a credential that does not change.
func Static(name, username string, password Secret) Source {
	return Credential{Name: name, Username: username, Password: password}
}

// Env is a credential whose password is in an environment variable.
type Env struct {
	Name     string
	Username string
	Variable string
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

// File is a credential whose password is the content of a file, without the line end. The file is read again once it
// has changed, through symbolic links too, as in a mounted Kubernetes secret. While it can't be read, the password
// that was read last stays in use and Status says what is wrong. Use it by pointer.
type File struct {
	Name     string
	Username string
	Path     string

	mu   sync.Mutex // guards what follows; held while the file is read
	seen os.FileInfo
	read time.Time
	text Secret
	err  error
}

// settled is how long a file must have been left alone before its times tell whether it has changed: a second write
// within one tick of the file system's clock does not show.
const settled = 2 * time.Second

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

// Status says how the last look at the file went.
func (f *File) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := Status{Name: f.Name, Kind: "file", State: StateOK, LastRefresh: f.read}
	if f.err != nil {
		s.State, s.LastError = StateFailing, f.err.Error()
	}
	return s
}

func (f *File) refresh() {
	now, err := os.Stat(f.Path)
	if err != nil {
		f.fail(err)
		return
	}
	if f.err == nil && f.seen != nil && os.SameFile(f.seen, now) && f.seen.Size() == now.Size() &&
		f.seen.ModTime().Equal(now.ModTime()) && f.read.Sub(now.ModTime()).Abs() > settled {
		return
	}
	text, err := f.load()
	if err != nil {
		f.fail(err)
		return
	}
	f.seen, f.read, f.text, f.err = now, time.Now(), text, nil
}

func (f *File) load() (Secret, error) {
	r, err := os.Open(f.Path)
	if err != nil {
		return Secret{}, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxSecretFile+1))
	if err != nil {
		return Secret{}, err
	}
	if len(b) > maxSecretFile {
		return Secret{}, fmt.Errorf("%s has more than %d bytes", f.Path, maxSecretFile)
	}
	text := NewSecret(strings.TrimRight(string(b), "\r\n"))
	if text.IsZero() {
		return Secret{}, fmt.Errorf("%s is empty", f.Path)
	}
	return text, nil
}

func (f *File) fail(err error) {
	f.seen = nil
	f.err = fmt.Errorf("credential %s: %w; put the password into the file, or correct passwordFile", f.Name, err)
}
