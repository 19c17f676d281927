//go:build !race

package disk_test

// step is how far apart the calls are that fail: each one where that is cheap.
const step = 1
