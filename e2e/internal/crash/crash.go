// Package crash looks at, and damages, the data folder of a mirror that does not run: after it was killed, before it is
// started again.
package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Blobs is what is stored: the digests by name, whatever the bytes are.
func Blobs(data string) (map[digest.Digest]bool, error) {
	found := make(map[digest.Digest]bool)
	err := walk(data, func(_ string, d digest.Digest) error {
		found[d] = true
		return nil
	})
	return found, err
}

// Check hashes all that is stored. Its error names what has other bytes than its name says.
func Check(data string) error {
	var wrong []error
	err := walk(data, func(path string, d digest.Digest) error {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the mirror has just removed it
		}
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		v := d.Verifier()
		n, err := io.Copy(v, f)
		if err != nil {
			return err
		}
		if !v.Verified() {
			wrong = append(wrong, fmt.Errorf("%s has %d other bytes", path, n))
		}
		return nil
	})
	return errors.Join(append(wrong, err)...)
}

// walk visits what is stored. What has no digest for a name is an error.
func walk(data string, visit func(path string, d digest.Digest) error) error {
	root := filepath.Join(data, "blobs")
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		parts := strings.Split(rel, string(filepath.Separator))
		if len(parts) != 3 || !strings.HasPrefix(parts[2], parts[1]) {
			return fmt.Errorf("%s has no place among the blobs", path)
		}
		d := digest.Digest(parts[0] + ":" + parts[2])
		if err := d.Validate(); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return visit(path, d)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Path is where content is stored.
func Path(data string, d digest.Digest) string {
	return filepath.Join(data, "blobs", string(d.Algorithm()), d.Encoded()[:2], d.Encoded())
}

// Spooled is the names in the spool.
func Spooled(data string) ([]string, error) {
	list, err := os.ReadDir(filepath.Join(data, "spool"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names, err
}

// Strange is what a running mirror does not have in its folder: what a killed one has left.
func Strange(data string) ([]string, error) {
	list, err := os.ReadDir(data)
	var names []string
	for _, e := range list {
		name := e.Name()
		switch name {
		case "LOCK", "boot.json", "scrub.json", "blobs", "spool", "recency.bin", "state.db", "state.db.good":
			continue
		}
		if strings.HasPrefix(name, "recency.bin.bad-") || strings.HasPrefix(name, "state.db.bad-") {
			continue // set aside, for inspection
		}
		names = append(names, name)
	}
	return names, err
}

// mark is the extended attribute of content that is known to be on disk.
const mark = "user.mirror.synced"

// LoseMachine makes the folder one of a machine that crashed before anything of it was known to be on disk, while the
// mirror ran or, if that is what it has noted, after it stopped cleanly.
func LoseMachine(data string) error {
	file := filepath.Join(data, "boot.json")
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var note map[string]any
	if err := json.Unmarshal(b, &note); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	note["boot"] = "00000000-0000-4000-8000-000000000000"
	if b, err = json.Marshal(note); err != nil {
		return err
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return err
	}
	return walk(data, func(path string, _ digest.Digest) error {
		if err := unix.Removexattr(path, mark); err != nil && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("take the mark from %s: %w", path, err)
		}
		return nil
	})
}

// Flip changes one bit of stored content, and nothing that shows from outside.
func Flip(data string, d digest.Digest, at int64) error { return flip(Path(data, d), at) }

func flip(file string, at int64) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 1
	_, err = f.WriteAt(b, at)
	return err
}

// FlipSpool changes one bit of each unfinished download, at the front.
func FlipSpool(data string) error {
	names, err := Spooled(data)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.Contains(name, ".") {
			continue // what is known of one
		}
		if err := flip(filepath.Join(data, "spool", name), 0); err != nil {
			return err
		}
	}
	return nil
}

// Scribble writes over the middle of a file, and so over pages that it refers to.
func Scribble(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	junk := make([]byte, info.Size())
	for i := range junk {
		junk[i] = byte(i*7 + 3)
	}
	_, err = f.WriteAt(junk, 0)
	return err
}
