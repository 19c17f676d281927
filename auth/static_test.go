package auth_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/auth"
)

func TestFileIsReadAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pass")
	f := &auth.File{Name: "hub", Username: "bot", Path: path}

	write(t, path, "first\n")
	expect(t, f, "first")
	expect(t, f, "first")
	write(t, path, "again\n") // same size, perhaps within the same tick of the clock
	expect(t, f, "again")

	// A file that has been left alone is not read again, but a changed time is enough.
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	expect(t, f, "again")
	write(t, path, "third\r\n")
	expect(t, f, "third")
}

func TestFileInSwappedFolder(t *testing.T) {
	t.Parallel()
	// As the kubelet lays a secret out: file -> ..data/file, ..data -> a folder per version.
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for _, version := range []string{"v1", "v2"} {
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, version, "pass"), "pass-"+version)
		if err := os.Chtimes(filepath.Join(dir, version, "pass"), old, old); err != nil {
			t.Fatal(err)
		}
	}
	link := func(version string) {
		t.Helper()
		next := filepath.Join(dir, "..next")
		if err := os.Symlink(version, next); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	link("v1")
	if err := os.Symlink(filepath.Join("..data", "pass"), filepath.Join(dir, "pass")); err != nil {
		t.Fatal(err)
	}
	f := &auth.File{Name: "hub", Path: filepath.Join(dir, "pass")}
	expect(t, f, "pass-v1")
	link("v2") // same size, same times, another file
	expect(t, f, "pass-v2")
}

func TestFileKeepsThePasswordWhileItCannotBeRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pass")
	f := &auth.File{Name: "hub", Username: "bot", Path: path}

	_, err := f.Credential(t.Context())
	if err == nil || !strings.Contains(err.Error(), "passwordFile") || !strings.Contains(err.Error(), path) {
		t.Errorf("missing file: %v; want an error that names the file and the setting", err)
	}
	if got := f.Status(); got.State != auth.StateFailing || got.LastError == "" {
		t.Errorf("missing file: status %+v", got)
	}

	write(t, path, "good")
	expect(t, f, "good")
	if got := f.Status(); got.State != auth.StateOK || got.LastError != "" || got.Kind != "file" {
		t.Errorf("good file: status %+v", got)
	}

	for _, broken := range []func() error{
		func() error { return os.Remove(path) },
		func() error { return os.WriteFile(path, []byte("\n"), 0o600) },
		func() error { return os.WriteFile(path, make([]byte, 65<<10), 0o600) },
	} {
		if err := broken(); err != nil {
			t.Fatal(err)
		}
		expect(t, f, "good")
		if got := f.Status(); got.State != auth.StateFailing {
			t.Errorf("broken file: status %+v", got)
		}
	}
	write(t, path, "better")
	expect(t, f, "better")
}

// The file is looked at before the credential is used for the first time: its state is never a guess.
func TestFileIsNeverOKWithoutAPassword(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(name, text string) string {
		write(t, filepath.Join(dir, name), text)
		return filepath.Join(dir, name)
	}
	for _, tt := range []struct{ name, path, says string }{
		{"missing", filepath.Join(dir, "none"), "/none does not exist; create it, or correct passwordFile"},
		{"empty", path("empty", ""), "/empty is empty; write the password to it"},
		{"a line end", path("line", "\r\n"), "/line is empty; write the password to it"},
		{"a folder", dir, " is a folder; name the file in it"},
		{"no path to it", filepath.Join(path("file", "x"), "below"), "can't be read: not a directory"},
		{"too large", path("large", strings.Repeat("x", 65<<10)), "can't be read: it has more than 64 KiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := &auth.File{Name: "hub", Username: "bot", Path: tt.path}
			got := f.Status()
			if got.State != auth.StateFailing || !strings.Contains(got.LastError, tt.says) ||
				!strings.Contains(got.LastError, "credential hub: its password file "+dir) ||
				got.Since.IsZero() || got.LastErrorAt.IsZero() {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestFileStatesHaveATime(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pass")
	write(t, path, "good")
	f := &auth.File{Name: "hub", Username: "bot", Path: path}
	ok := f.Status()
	if again := f.Status(); ok.State != auth.StateOK || ok.Since.IsZero() || !again.Since.Equal(ok.Since) {
		t.Errorf("good: %+v, then %+v", ok, again)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	gone := f.Status()
	if gone.State != auth.StateFailing || !gone.Since.After(ok.Since) || !strings.Contains(gone.LastError, "is used") {
		t.Errorf("gone: %+v", gone)
	}
	write(t, path, "")
	if empty := f.Status(); !empty.Since.Equal(gone.Since) || !strings.Contains(empty.LastError, "empty") {
		t.Errorf("empty: %+v, was gone since %v", empty, gone.Since)
	}
	write(t, path, "good")
	if back := f.Status(); back.State != auth.StateOK || !back.Since.After(gone.Since) || !back.LastErrorAt.IsZero() {
		t.Errorf("back: %+v", back)
	}
}

func TestTheLogTellsOfAMissingPasswordOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "pass")
		var b strings.Builder
		log := slog.New(slog.NewTextHandler(&b, nil))
		ctx, stop := context.WithCancel(t.Context())
		f := &auth.File{Name: "hub", Path: path, Log: log}
		go func() { _ = f.Run(ctx) }()
		time.Sleep(time.Minute + time.Second) // of the bubble, and not when Run looks: it would see the file without its content
		write(t, path, "good")
		time.Sleep(11 * time.Second)
		stop()
		synctest.Wait()
		_ = auth.Env{Name: "ci", Variable: "MIRROR_TEST_NO_SUCH", Log: log}.Run(t.Context())
		got := b.String()
		if strings.Count(got, "level=WARN") != 2 || strings.Count(got, "level=INFO") != 1 ||
			!strings.Contains(got, "only public images are pulled until it can") || !strings.Contains(got, "name=MIRROR_TEST_NO_SUCH") {
			t.Errorf("log:\n%s", got)
		}
	})
}

func TestEnv(t *testing.T) {
	t.Setenv("MIRROR_TEST_PASSWORD", "")
	e := auth.Env{Name: "hub", Username: "bot", Variable: "MIRROR_TEST_PASSWORD"}
	if _, err := e.Credential(t.Context()); err == nil || !strings.Contains(err.Error(), "MIRROR_TEST_PASSWORD") {
		t.Errorf("unset: %v; want an error that names the variable", err)
	}
	if got := e.Status().State; got != auth.StateFailing {
		t.Errorf("unset: state %s", got)
	}
	t.Setenv("MIRROR_TEST_PASSWORD", "word\n")
	expect(t, e, "word")
	if got := e.Status().State; got != auth.StateOK {
		t.Errorf("set: state %s", got)
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	past := time.Now().Add(-time.Minute)
	for _, tt := range []struct {
		name   string
		source auth.Source
		want   auth.Status
	}{
		{"nil", nil, auth.Status{}},
		{"anonymous", auth.Anonymous, auth.Status{}},
		{
			"static",
			auth.Credential{Name: "hub", Username: "bot", Password: auth.NewSecret("x")},
			auth.Status{Name: "hub", Kind: "static", State: auth.StateOK},
		},
		{
			"expired",
			auth.Credential{Name: "hub", Password: auth.NewSecret("x"), Expires: past},
			auth.Status{Name: "hub", Kind: "static", State: auth.StateExpired, Expires: past},
		},
	} {
		if diff := cmp.Diff(tt.want, auth.Describe(tt.source)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, diff)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, s auth.Source, want string) {
	t.Helper()
	c, err := s.Credential(t.Context())
	if err != nil || c.Password.Reveal() != want {
		t.Errorf("password %q, %v, want %q", c.Password.Reveal(), err, want)
	}
}
