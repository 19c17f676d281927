package recency

import "os"

// MaxReplaced is how many records may be superfluous before the file is written again.
const MaxReplaced = maxReplaced

// File is the file that is written to.
func (x *Index) File() *os.File { return x.file }
