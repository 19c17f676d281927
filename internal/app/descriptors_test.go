package app_test

import (
	"testing"

	"github.com/registrymirror/mirror/internal/app"
)

func TestConnectionsFollowTheLimitOnFiles(t *testing.T) {
	t.Parallel()
	for files, want := range map[uint64]int{
		0: 1, 1: 1, 64: 32, 512: 256, 1024: 512, 4096: 2048, 16_384: 8192, 20_000: 11_808, 28_192: 20_000, 1 << 20: 20_000,
		1<<64 - 1: 20_000, // no limit
	} {
		if got := app.Within(files); got != want {
			t.Errorf("%d files: %d connections, want %d", files, got, want)
		}
	}
}
