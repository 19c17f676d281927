package disk

import "os"

// InMemory is how many of the first n bytes of a file the kernel has in memory, by pages.
func InMemory(f *os.File, n int) (in int) {
	for _, p := range inMemory(f, 0, n) {
		in += int(p&1) * os.Getpagesize()
	}
	return in
}
