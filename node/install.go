package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/registrymirror/mirror/internal/point"
	"github.com/registrymirror/mirror/internal/regular"
	"github.com/registrymirror/mirror/internal/text"
)

const (
	hostsFile = "hosts.toml"
	// before is what a file is called that was there before ours took its place.
	before = "hosts.toml.before-mirror"
	// unfinished is a file that is being written. One that a crash has left is written over.
	unfinished = "hosts.toml.mirror-new"
)

// Change is what was done to a file.
type Change struct {
	Path string // below the folder
	Done string // "written", "replaced", "unchanged", "foreign" (left as it is), "removed", "restored"
}

// Install writes the hosts.toml files of an Output into a folder of containerd, CertsDir as a rule: each at once or not at all. A
// file that is not ours is kept beside it, and Uninstall puts it back. Nothing else in the folder is touched, and nothing
// outside it. After a crash at any point each registry has its former file or the new one; another call goes on.
func Install(dir string, files []File) ([]Change, error) { return installAll(dir, files, true) }

// Repair is Install for a folder in which it was done before: a file that is not ours, which another program has written since,
// stays.
func Repair(dir string, files []File) ([]Change, error) { return installAll(dir, files, false) }

func installAll(dir string, files []File, others bool) ([]Change, error) {
	// The usual folder may have to be made as a whole. The parent of another one is there, or the path is mistyped.
	mkdir := os.Mkdir
	if dir == CertsDir {
		mkdir = os.MkdirAll
	}
	if err := mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // containerd reads it
		return nil, fmt.Errorf("make the folder of containerd's registries; check its path: %w", err)
	}
	root, err := regular.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the folder of containerd's registries: %w", err)
	}
	defer func() { _ = root.Close() }()
	var changes []Change
	for _, f := range files {
		name, err := filepath.Rel(dir, f.Path)
		if err != nil || path.Base(f.Path) != hostsFile || strings.Count(filepath.ToSlash(name), "/") != 1 {
			continue // a part of another file, which is for a person to merge
		}
		done, err := install(root, path.Dir(name), f, others)
		if err != nil {
			return changes, fmt.Errorf("write %s: %w%s", f.Path, err, linkRemedy(err, dir))
		}
		changes = append(changes, Change{name, done})
	}
	return changes, nil
}

// shownError is an error that names a folder of another program: control characters in the name do not reach a terminal.
type shownError struct{ error }

func (e *shownError) Error() string { return text.Line(e.error.Error(), 500) }
func (e *shownError) Unwrap() error { return e.error }

// linkRemedy is what to do about an error of a file, unless that says so itself.
func linkRemedy(err error, dir string) string {
	if regular.Unfit(err) {
		return ""
	}
	return "; no link is followed out of " + dir + ", so replace one by a file or a folder"
}

func install(root *os.Root, registry string, f File, others bool) (done string, err error) {
	if err := root.Mkdir(registry, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	point.Hit("node/folder")
	file := path.Join(registry, hostsFile)
	old, err := regular.ReadIn(regular.Below(root), file, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		done = "written"
	case !others && regular.Unfit(err), err == nil && !others && !isOurs(old):
		return "foreign", nil
	case err != nil:
		return "", err
	case string(old) == f.Content:
		return "unchanged", nil
	default:
		done = "replaced"
		if !isOurs(old) {
			info, err := root.Stat(file)
			if err == nil {
				err = write(root, path.Join(registry, before), string(old), info.Mode().Perm())
			}
			if err != nil {
				return "", fmt.Errorf("keep the file that is there: %w", err)
			}
			point.Hit("node/kept")
		}
	}
	mode := fs.FileMode(0o644)
	if f.Secret {
		mode = 0o600
	}
	return done, write(root, file, f.Content, mode)
}

// isOurs reports whether Install has written a file.
func isOurs(content []byte) bool { return strings.HasPrefix(string(content), Mark+"\n") }

// write writes a file at once or not at all, on disk before it takes its name.
func write(root *os.Root, name, content string, mode fs.FileMode) (err error) {
	part := path.Join(path.Dir(name), unfinished)
	if err := root.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content[:len(content)/2])
	point.Hit("node/part")
	if err == nil {
		_, err = f.WriteString(content[len(content)/2:])
	}
	if err == nil {
		err = f.Sync()
	}
	point.Hit("node/written")
	if err = errors.Join(err, f.Close()); err == nil {
		err = root.Rename(part, name)
	}
	if err != nil {
		_ = root.Remove(part)
		return err
	}
	point.Hit("node/named")
	d, err := root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Uninstall removes what Install has written below a folder, and puts back what was there before. Files of others stay.
func Uninstall(dir string) ([]Change, error) {
	root, err := regular.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the folder of containerd's registries: %w", err)
	}
	defer func() { _ = root.Close() }()
	folders, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list the folder of containerd's registries: %w", err)
	}
	var changes []Change
	for _, d := range folders {
		if !d.IsDir() {
			continue
		}
		done, err := uninstall(root, d.Name())
		if err != nil {
			return changes, fmt.Errorf("restore %s: %w%s", text.Line(filepath.Join(dir, d.Name(), hostsFile), 300), &shownError{err}, linkRemedy(err, dir))
		}
		if done != "" {
			changes = append(changes, Change{path.Join(d.Name(), hostsFile), done})
		}
	}
	return changes, nil
}

// readOwn reads a file that Install may have written: that is never a link.
func readOwn(root *os.Root, name string) ([]byte, error) {
	if info, err := root.Lstat(name); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return nil, &regular.KindError{Kind: "a link"}
	}
	return regular.ReadIn(regular.Below(root), name, maxFile)
}

func uninstall(root *os.Root, registry string) (done string, err error) {
	file, kept := path.Join(registry, hostsFile), path.Join(registry, before)
	if err := root.Remove(path.Join(registry, unfinished)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	point.Hit("node/swept")
	now, nowErr := readOwn(root, file)
	gone, ours := errors.Is(nowErr, fs.ErrNotExist), isOurs(now)
	if nowErr != nil && !gone && !regular.Unfit(nowErr) { // what is not a hosts.toml is another program's
		return "", nowErr
	}
	old, err := readOwn(root, kept)
	_, large := errors.AsType[*regular.SizeError](err) // earlier versions kept a file of any size
	_, other := errors.AsType[*regular.KindError](err) // which Install did not write
	if err != nil && !large && !other && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	there := err == nil || large
	switch {
	case there && (ours || gone): // gone: ours was removed by another program
		err := root.Rename(kept, file)
		point.Hit("node/restored")
		return "restored", err
	case err == nil && nowErr == nil && string(old) == string(now): // a crash came between the copy and our file
		return "", root.Remove(kept)
	case ours:
		if err := root.Remove(file); err != nil {
			return "", err
		}
		point.Hit("node/removed")
		_ = root.Remove(registry) // which is an error where other files are in it
		return "removed", nil
	case gone && !there:
		_ = root.Remove(registry) // left by a crash, if it is empty
	}
	return "", nil
}
