package images

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/registrymirror/mirror/internal/regular"
)

// ReadAll finds the images of files, of the *.yaml, *.yml, *.json and *.txt below folders, and of stdin for "-". Left out are files
// whose names begin with a dot, and lists whose first line has neither a registry nor a tag nor a digest: folders have texts of other
// kinds. Links that lead out of the folder are problems, and so are pipes and sockets, and a chart (a folder with a Chart.yaml), which has to
// be rendered.
// The error is of a path that can't be opened.
func ReadAll(paths []string, stdin io.Reader, o Options) (Result, error) {
	c := newCollector(o)
	for _, path := range paths {
		if err := c.path(path, stdin); err != nil {
			return Result{}, fmt.Errorf("read images: %w", err)
		}
	}
	return c.result, nil
}

func (c *collector) path(path string, stdin io.Reader) error {
	if path == "-" {
		c.read(path, stdin)
		return nil
	}
	f, err := regular.Input(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return c.folder(path)
	}
	c.read(path, f)
	return nil
}

// folder reads the files of a folder and those below it, in the order of their names.
func (c *collector) folder(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	c.inFolder = true
	defer func() { c.inFolder = false }()
	files := 0
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		c.file, c.document = filepath.Join(dir, name), 0
		switch {
		case err != nil:
			c.problem(0, "", err.Error())
			return nil
		case name != "." && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			if _, err := root.Stat(filepath.Join(name, "Chart.yaml")); err == nil {
				c.problem(0, "", "a chart; give the output of \"helm template\"")
				return fs.SkipDir
			}
			return nil
		case d.Type()&fs.ModeSymlink != 0:
			if text := linkProblem(root, name); text != "" {
				c.problem(0, "", text)
				return nil
			}
		}
		if !readable(name) {
			return nil
		}
		if files++; files > maxFiles {
			c.problem(0, "", fmt.Sprintf("more than %d files; this one and others after it are not read", maxFiles))
			return fs.SkipAll
		}
		if err := c.within(root, name); err != nil {
			c.problem(0, "", err.Error())
		}
		return nil
	})
}

// readable reports whether a file of that name in a folder is read.
func readable(name string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json", ".txt"}, strings.ToLower(filepath.Ext(name)))
}

// linkProblem is why what a link leads to is not read. Empty: it is within the folder, or would not be read in any case.
func linkProblem(root *os.Root, name string) string {
	if _, err := root.Stat(name); err == nil {
		return ""
	}
	info, err := os.Stat(filepath.Join(root.Name(), name))
	switch {
	case err != nil && readable(name):
		return "a link to a file that is not there; remove it"
	case err == nil && info.IsDir():
		return "a link to a folder outside of this one; give that folder with -f"
	case err == nil && readable(name):
		return "a link to a file outside of this folder; give that file with -f"
	}
	return ""
}

// within reads a file of a folder. A pipe or a device would keep the reader waiting.
func (c *collector) within(root *os.Root, name string) error {
	f, err := regular.OpenIn(regular.Below(root), name)
	switch {
	case errors.Is(err, syscall.EISDIR): // a link to a folder within this one
		return nil
	case regular.Unfit(err):
		return errors.New("a pipe, a socket or a device, and not a file; give its content with -f -")
	case err != nil:
		return err
	}
	defer f.Close()
	c.read(filepath.Join(root.Name(), name), f)
	return nil
}
