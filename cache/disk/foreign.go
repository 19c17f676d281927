package disk

import (
	"errors"
	"io"
	"slices"
	"strings"
)

// ours are the names, or the beginnings of names, that a mirror's folder has in it.
var ours = []string{
	lockFile, blobsDir, spoolDir, bootFile, scrubFile, "recency.bin", "index.db", "state.db", "lost+found", ".",
}

// mostNamed is how many foreign files a warning names.
const mostNamed = 5

// strangers warns of files in the folder that are not the mirror's: a folder that others use, too, was perhaps not meant.
// They are left alone in any case.
func (s *Store) strangers() {
	d, err := s.root.Open(".")
	if err != nil {
		return // the calls that need the folder report it
	}
	defer d.Close()
	var found []string
	for len(found) < mostNamed {
		names, err := d.Readdirnames(100)
		for _, n := range names {
			if !slices.ContainsFunc(ours, func(o string) bool { return strings.HasPrefix(n, o) }) && len(found) < mostNamed {
				found = append(found, n)
			}
		}
		if errors.Is(err, io.EOF) || err != nil {
			break
		}
	}
	if len(found) > 0 {
		slices.Sort(found)
		s.o.Log.Warn("the cache folder has files of others in it, which stay as they are; is it the folder that was meant? Give the "+
			"mirror one of its own", "dir", s.path, "files", strings.Join(found, " "))
	}
}
