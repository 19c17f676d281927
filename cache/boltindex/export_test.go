package boltindex

import "os"

// File is what bbolt writes to.
func (x *Index) File() *os.File { return x.file }
