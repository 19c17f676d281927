package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"path"
	"slices"
	"strings"
)

// archive is a tar.gz of one folder. All in it is of root and of the time of the release, in the order of the names.
func (r release) archive(folder string, files []file) ([]byte, error) {
	var b bytes.Buffer
	zipped, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(zipped)
	files = slices.SortedFunc(slices.Values(files), func(a, b file) int { return strings.Compare(a.name, b.name) })
	made := make(map[string]bool)
	var add func(f file) error
	add = func(f file) error {
		parent := path.Dir(strings.TrimSuffix(f.name, "/"))
		if parent != "." && !made[parent] {
			made[parent] = true
			if err := add(file{parent + "/", 0o755, nil}); err != nil {
				return err
			}
		}
		h := &tar.Header{
			Name: f.name, Mode: int64(f.mode), Size: int64(len(f.content)), ModTime: r.created, Typeflag: tar.TypeReg, Format: tar.FormatPAX,
		}
		if strings.HasSuffix(f.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := w.Write(f.content)
		return err
	}
	for _, f := range files {
		f.name = path.Join(folder, f.name)
		if err := add(f); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := zipped.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
