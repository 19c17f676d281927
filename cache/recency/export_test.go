package recency

import "os"

// SetMaxReplaced sets how many records may be replaced by later ones before the file is written again.
func (x *Index) SetMaxReplaced(n int) { x.maxReplaced = n }

// File is the file that is written to.
func (x *Index) File() *os.File { return x.file }
