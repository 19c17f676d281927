package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache/disk"
)

// cacheDir makes a cache folder with blobs of 1000, 2000, ... bytes, of which the 2nd has a wrong byte and the 4th is
// empty if they shall be damaged. It returns its configuration and the digests.
func cacheDir(t *testing.T, damaged bool) (config, dir string, list []digest.Digest) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "cache")
	s, err := disk.Open(dir, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // it runs while the folder is verified
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := range 5 {
		b := bytes.Repeat([]byte{byte(i)}, 1000*(i+1))
		p, err := s.Create(int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		d := digest.FromBytes(b)
		_, err = p.WriteAt(b, 0)
		if err := errors.Join(err, p.Commit(d, int64(len(b))), p.Discard()); err != nil {
			t.Fatal(err)
		}
		list = append(list, d)
		name := blobName(dir, d)
		if damaged && i == 1 {
			b[77] ^= 1
			err = os.WriteFile(name, b, 0o600)
		}
		if damaged && i == 3 {
			err = os.Truncate(name, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return configFile(t, fmt.Sprintf("cache: {dir: %q}\n", dir)), dir, list
}

func blobName(dir string, d digest.Digest) string {
	return filepath.Join(dir, "blobs", "sha256", d.Encoded()[:2], d.Encoded())
}

func TestCacheVerify(t *testing.T) {
	t.Parallel()
	wrong := digest.FromBytes(func() []byte {
		b := bytes.Repeat([]byte{1}, 2000)
		b[77] ^= 1
		return b
	}())
	for _, tt := range []struct {
		name            string
		damaged, remove bool
		code            int
		stdout, stderr  string
	}{
		{name: "all right", stdout: "DIR: read 5 blobs, 14.6 KiB: nothing is damaged\n"},
		{name: "all right, to be removed", remove: true, stdout: "DIR: read 5 blobs, 14.6 KiB: nothing is damaged\n"},
		{
			name: "damaged", damaged: true, code: 1,
			stdout: "TWO  2000 bytes  hash: its bytes are WRONG\nFOUR  0 bytes  size: the file is empty\n",
			stderr: "mirror: DIR: read 5 blobs, 10.7 KiB, 2 damaged. Run it again with --remove: the mirror downloads " +
				"the content again at the next pull. Check the disk of cache.dir\n",
		},
		{
			name: "damaged, to be removed", damaged: true, remove: true, code: 1,
			stdout: "TWO  2000 bytes  hash: its bytes are WRONG; removed\nFOUR  0 bytes  size: the file is empty; removed\n",
			stderr: "mirror: DIR: read 5 blobs, 10.7 KiB, 2 damaged, 2 removed. The mirror downloads the removed content again " +
				"at the next pull. Check the disk of cache.dir\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			config, dir, list := cacheDir(t, tt.damaged)
			args := []string{"cache", "verify", "--config", config}
			if tt.remove {
				args = append(args, "--remove")
			}
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), &stdout, &stderr, args...)
			with := strings.NewReplacer("DIR", dir, "TWO", string(list[1]), "FOUR", string(list[3]), "WRONG", string(wrong))
			// The blobs come in the order of their digests.
			lines := strings.SplitAfter(with.Replace(tt.stdout), "\n")
			if len(lines) > 2 && lines[0] > lines[1] {
				lines[0], lines[1] = lines[1], lines[0]
			}
			if want := strings.Join(lines, ""); code != tt.code || stdout.String() != want {
				t.Errorf("exit code %d, want %d; it prints:\n%swant:\n%s", code, tt.code, &stdout, want)
			}
			if want := with.Replace(tt.stderr); stderr.String() != want {
				t.Errorf("it says:\n%swant:\n%s", &stderr, want)
			}
			for i, d := range list {
				_, err := os.Stat(blobName(dir, d))
				if gone := errors.Is(err, os.ErrNotExist); gone != (tt.damaged && tt.remove && (i == 1 || i == 3)) {
					t.Errorf("blob %d: %v", i, err)
				}
			}
			if tt.remove {
				if code := run(t.Context(), &stdout, &stderr, args...); code != exitOK {
					t.Errorf("after a removal: exit code %d", code)
				}
			}
		})
	}
}

// canceler ends a context at the first write.
type canceler struct {
	bytes.Buffer
	cancel context.CancelFunc
}

func (c *canceler) Write(p []byte) (int, error) {
	c.cancel()
	return c.Buffer.Write(p)
}

func TestCacheVerifyIsStopped(t *testing.T) {
	t.Parallel()
	config, dir, list := cacheDir(t, false)
	for _, d := range list {
		if err := os.WriteFile(blobName(dir, d), []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	stdout := &canceler{cancel: cancel}
	var stderr bytes.Buffer
	code := run(ctx, stdout, &stderr, "cache", "verify", "--config", config)
	if code != exitFailed || strings.Count(stdout.String(), "\n") != 1 ||
		stderr.String() != "mirror: stopped before everything was read; so far "+dir+": read 1 blobs, 7 B, 1 damaged\n" {
		t.Errorf("exit code %d\n%s%s", code, stdout.String(), &stderr)
	}
}

func TestCacheVerifyNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "nothing")
	config := configFile(t, fmt.Sprintf("cache: {dir: %q}\n", dir))
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), &stdout, &stderr, "cache", "verify", "--config", config)
	if code != exitFailed || stdout.Len() > 0 || !strings.Contains(stderr.String(), dir) ||
		!strings.Contains(stderr.String(), "check cache.dir") {
		t.Errorf("exit code %d\n%s%s", code, &stdout, &stderr)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it made the folder: %v", err)
	}
}

func TestCacheUsage(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"cache verfy":         `did you mean "verify"`,
		"cache verify extra":  `cache verify takes no argument, but got "extra"`,
		"cache verify --rm":   "unknown flag",
		"cache check-nothing": `unknown command "check-nothing" for "mirror cache"`,
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), &stdout, &stderr, strings.Fields(args)...); code != exitUsage ||
			!strings.Contains(stderr.String(), want) {
			t.Errorf("%s: exit code %d: %s", args, code, &stderr)
		}
	}
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), &stdout, &stderr, "cache")
	if code != exitOK || !strings.Contains(stdout.String(), "verify") {
		t.Errorf("help: exit code %d: %s%s", code, &stdout, &stderr)
	}
}

// Progress is shown on a terminal alone, and makes room for each line of the result.
func TestCacheVerifyProgress(t *testing.T) {
	t.Parallel()
	_, dir, _ := cacheDir(t, true)
	var screen bytes.Buffer
	v := verifier{dir: dir, out: &screen, err: &screen, tty: true}
	if err := v.run(t.Context()); err == nil {
		t.Error("nothing is damaged")
	}
	if !regexp.MustCompile(`\r\x1b\[K[01] of 5 blobs, \d.* of 10\.7 KiB`).MatchString(screen.String()) {
		t.Errorf("no progress: %q", &screen)
	}
	if regexp.MustCompile(`KiB[^\r\x1b]*sha256:[0-9a-f]{64}  `).MatchString(screen.String()) ||
		strings.Contains(screen.String(), "\n\r\x1b[K\r\x1b[K\n") {
		t.Errorf("a line stands behind the progress: %q", &screen)
	}
}
