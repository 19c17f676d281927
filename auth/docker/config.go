package docker

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/regular"
)

const (
	maxFile  = 1 << 20 // bytes of a config.json; a Kubernetes secret has at most so many
	maxFiles = 64      // of a folder
	// pollEvery is how often the content is looked at, for file systems that report no changes.
	pollEvery = 10 * time.Second
)

// Options say which logins a Config holds.
type Options struct {
	Name string // of the credential, for people
	// Path is a config.json, or a folder: its .dockerconfigjson, .dockercfg, config.json and *.json are read, and where
	// two have the same entry, the first of them wins in that order.
	Path string
	Host string // the registry, as it stands in image names

	Lifetime time.Duration // of a helper's answer. 0: an hour
	Log      *slog.Logger  // nil: discard
	// Observe is called after each look that found new content or failed, and after each answer of a helper, from any
	// goroutine, with the name of the credential. It must not call back. Nil: nothing is called.
	Observe func(name string, err error)
}

// Config is the source of the logins of one registry in a docker config. Make it by NewConfig. It is safe for concurrent
// use. While the file can't be read, the content that was read last stays in use.
type Config struct {
	*files
	repository string // empty: the registry as a whole
}

// files are the files, shared by the Configs of all repositories.
type files struct {
	o Options

	mu      sync.Mutex // guards what follows; held while files are read
	looked  time.Time
	sum     [sha256.Size]byte
	changed time.Time // when the content was read; zero: never
	content content
	err     error     // of the last look
	since   time.Time // when looks began to succeed, or to fail, as the last one did
	helpers map[question]*helper
	ctx     context.Context // of Run; nil: it does not run
	wg      sync.WaitGroup  // the helpers' Run
}

// question is a helper and the host that it is asked for.
type question struct{ program, host string }

type helper struct {
	*auth.Refreshed
	stop context.CancelFunc // of its Run; nil: it doesn't run
}

// NewConfig makes the source. It reads nothing yet.
func NewConfig(o Options) *Config {
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	if o.Observe == nil {
		o.Observe = func(string, error) {}
	}
	return &Config{files: &files{o: o, helpers: make(map[question]*helper)}}
}

// For is the login for one repository.
func (c *Config) For(repository string) auth.Source { return &Config{c.files, repository} }

// Credential is the login for the registry as a whole, or for the repository of For.
func (c *Config) Credential(ctx context.Context) (auth.Credential, error) {
	return c.login(false, func(h *helper) (auth.Credential, error) { return h.Credential(ctx) })
}

// Renew looks at the files at once, and asks a helper again.
func (c *Config) Renew(ctx context.Context, refused auth.Credential) (auth.Credential, error) {
	return c.login(true, func(h *helper) (auth.Credential, error) { return h.Renew(ctx, refused) })
}

// login is the login of the files, or what ask gets of the helper that they name. Now: the files are looked at at once.
func (c *Config) login(now bool, ask func(*helper) (auth.Credential, error)) (auth.Credential, error) {
	c.mu.Lock()
	c.look(now)
	f, err := c.find(c.repository)
	c.mu.Unlock()
	if err != nil {
		return auth.Credential{}, err
	}
	if f.helper != nil {
		if cred, err := ask(f.helper); err != nil || !cred.IsAnonymous() {
			return cred, err
		}
	}
	return f.login, f.problem
}

// Status says how the last look at the files went, and the helper's last answer. The files are looked at now if that is long
// ago. No program is run.
func (c *Config) Status() auth.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look(false) // a file that is missing is not ok before it is needed
	s := auth.Status{
		Name: c.o.Name, Kind: "dockerConfig", For: c.o.Host, State: auth.StateOK, Since: c.since, LastRefresh: c.changed,
	}
	err := c.err
	if !c.changed.IsZero() {
		f, none := c.find(c.repository)
		if err == nil {
			err = none
		}
		if f.helper != nil {
			s = f.helper.Status()
			s.Kind = "dockerConfig"
		} else if err == nil {
			err = f.problem
		}
	}
	if err != nil {
		s.State, s.LastError, s.LastErrorAt = auth.StateFailing, err.Error(), c.looked
	}
	return s
}

// found is the part of a config for a repository: a helper, and a login for where the helper has none. The problem says why the
// login can't be used.
type found struct {
	helper  *helper
	login   auth.Credential
	problem error
}

// find looks a repository up. The lock is held.
func (c *files) find(repository string) (found, error) {
	if c.changed.IsZero() {
		return found{}, c.err
	}
	var f found
	program := c.content.store
	if _, p, ok := best(c.content.helpers, c.o.Host, repository); ok {
		program = p
	}
	if program != "" {
		f.helper = c.helper(program)
	}
	at, e, ok := best(c.content.auths, c.o.Host, repository)
	switch {
	case ok && e.problem == "":
		f.login = auth.Credential{Name: c.o.Name, Username: e.username, Password: e.password, Identity: e.identity}
	case ok && f.helper == nil:
		f.problem = fmt.Errorf("credential %s: the entry %s of %s is not a login: %s", c.o.Name, at, c.o.Path, e.problem)
	case ok || f.helper != nil, c.partly():
	default:
		f.problem = fmt.Errorf("credential %s: %s has no entry for %s; add one, or remove dockerConfig from the credentials "+
			"of that upstream", c.o.Name, c.o.Path, c.o.Host)
	}
	return f, nil
}

// partly reports whether there are entries for some repositories of the registry. The lock is held.
func (c *files) partly() bool {
	for k := range c.content.auths {
		if k.path != "" && matchHost(k.host, c.o.Host) {
			return true
		}
	}
	return false
}

// helper is the source of a helper, made once. The lock is held.
func (c *files) helper(suffix string) *helper {
	k := question{"docker-credential-" + suffix, c.o.Host}
	if h := c.helpers[k]; h != nil {
		return h
	}
	ask := Helper{Program: k.program, Host: k.host}
	h := &helper{Refreshed: auth.NewRefreshed(auth.Refresh{
		Name: c.o.Name, Kind: "helper", For: c.o.Host, Lifetime: c.o.Lifetime, Log: c.o.Log, Observe: c.o.Observe,
		Fetch: func(ctx context.Context) (auth.Grant, error) {
			cred, _, err := ask.get(ctx) // a store may have no login for this registry
			return auth.Grant{Credential: cred}, err
		},
	})}
	c.helpers[k] = h
	c.run(h)
	return h
}

// run lets a helper work in the background while Run lasts. The lock is held.
func (c *files) run(h *helper) {
	if c.ctx == nil {
		return
	}
	ctx, stop := context.WithCancel(c.ctx)
	h.stop = stop
	c.wg.Go(func() { _ = h.Run(ctx) }) // it returns nil
}

// look reads the files if they have not been looked at for a while, or at once. The lock is held.
func (c *files) look(now bool) {
	if !now && time.Since(c.looked) < pollEvery && !c.looked.IsZero() {
		return
	}
	c.looked = time.Now()
	old := c.err
	news, err := c.read()
	c.err = nil
	if err != nil {
		c.err = fmt.Errorf("credential %s: %w; put a docker config there, or correct dockerConfig", c.o.Name, err)
	}
	if c.since.IsZero() || (old == nil) != (c.err == nil) {
		c.since = c.looked
	}
	log := c.o.Log.With("credential", c.o.Name, "path", c.o.Path)
	switch {
	case err != nil && old == nil && c.changed.IsZero():
		log.Error("docker config can't be read: only public images are pulled until it can", "error", err)
	case err != nil && old == nil:
		log.Warn("docker config can't be read: the content that was read before stays in use", "error", err)
	case err == nil && (news || old != nil):
		log.Info("docker config is read", "host", c.o.Host)
	}
	if news || err != nil {
		c.o.Observe(c.o.Name, c.err)
	}
}

// read takes the content into use if it has changed. The lock is held.
func (c *files) read() (news bool, err error) {
	texts, err := load(c.o.Path)
	if err != nil {
		return false, err
	}
	sum := sha256.New()
	for _, t := range texts {
		fmt.Fprintf(sum, "%d\n", len(t.text))
		sum.Write(t.text)
	}
	now := [sha256.Size]byte(sum.Sum(nil))
	if now == c.sum && !c.changed.IsZero() {
		return false, nil
	}
	merged, err := merge(texts)
	if err != nil {
		return false, err
	}
	c.sum, c.content, c.changed = now, merged, time.Now()
	for _, h := range c.helpers { // the new content may name another helper, or the same one may have another login
		if h.stop != nil {
			h.stop()
		}
	}
	clear(c.helpers)
	return true, nil
}

type file struct {
	path string
	text []byte
}

// load reads a file, or those of a folder that may hold logins.
func load(path string) ([]file, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		text, err := regular.Read(path, maxFile)
		return []file{{path, text}}, err
	}
	dir, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	names := []string{".dockerconfigjson", ".dockercfg", "config.json"}
	for _, e := range dir {
		if n := e.Name(); strings.HasSuffix(n, ".json") && !strings.HasPrefix(n, ".") && n != "config.json" {
			names = append(names, n)
		}
	}
	if len(names) > maxFiles {
		return nil, fmt.Errorf("%s has more than %d files", path, maxFiles)
	}
	var files []file
	for _, n := range names {
		text, err := regular.Read(filepath.Join(path, n), maxFile)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files = append(files, file{filepath.Join(path, n), text})
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no .dockerconfigjson and no config.json", path)
	}
	return files, nil
}

// merge puts several files together; the first one wins.
func merge(files []file) (content, error) {
	all := content{auths: map[key]entry{}, helpers: map[key]string{}}
	for _, f := range slices.Backward(files) {
		c, err := parse(f.text)
		if err != nil {
			return content{}, fmt.Errorf("%s %w", f.path, err)
		}
		maps.Copy(all.auths, c.auths)
		maps.Copy(all.helpers, c.helpers)
		all.store = cmp.Or(c.store, all.store)
	}
	return all, nil
}
