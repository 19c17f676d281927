package images

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ReadAll finds the images of files, of the *.yaml, *.yml, *.json and *.txt below folders, and of stdin for "-". Left out are files
// whose names begin with a dot, and lists whose first line has neither a registry nor a tag nor a digest: folders have texts of other
// kinds. Links that lead out of the folder are problems, and so is a chart (a folder with a Chart.yaml), which has to be rendered.
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
	f, err := os.Open(path)
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
		case !slices.Contains([]string{".yaml", ".yml", ".json", ".txt"}, strings.ToLower(filepath.Ext(name))):
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

// within reads a file of a folder. A pipe or a device would keep the reader waiting, and is left out.
func (c *collector) within(root *os.Root, name string) error {
	info, err := root.Stat(name)
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	c.read(filepath.Join(root.Name(), name), f)
	return nil
}
