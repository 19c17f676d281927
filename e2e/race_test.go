//go:build race

package e2e_test

// raced says that the tests, and so the binary that they run, are built with the race detector.
const raced = true
