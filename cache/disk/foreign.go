package disk

import (
	"log/slog"
	"slices"
	"strings"
)

// ownNames are the beginnings of names that a mirror's folder has in it.
var ownNames = []string{
	lockFile, blobsDir, spoolDir, bootFile, scrubFile, "recency.bin", "index.db", "state.db", "lost+found", ".",
}

// maxForeignNamed is how many foreign files a warning names.
const maxForeignNamed = 5

// warnOfForeign warns of files in the folder that are not the mirror's: a folder that other programs use, too, was perhaps
// not meant. They are left alone in any case.
func (f *folder) warnOfForeign() {
	d, err := f.root.Open(".")
	if err != nil {
		return // the calls that need the folder report it
	}
	defer d.Close()
	var found []string
	for len(found) < maxForeignNamed {
		names, err := d.Readdirnames(100)
		for _, n := range names {
			if !slices.ContainsFunc(ownNames, func(o string) bool { return strings.HasPrefix(n, o) }) && len(found) < maxForeignNamed {
				found = append(found, n)
			}
		}
		if err != nil { // there are no more, or they can't be read
			break
		}
	}
	if len(found) > 0 {
		slices.Sort(found)
		f.report(slog.LevelWarn, "the cache folder has files of other programs in it, which stay as they are; is it the folder "+
			"that was meant? Give the mirror one of its own", "name", strings.Join(found, " "))
	}
}
