package recency_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/oci"
)

// The power goes during a write: of each 512 bytes that it appended, the disk has the new ones, or zeros, or the file did
// not grow so far. What the index then has is what was recorded before that write, or after it.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	const sector = 512
	all := moments(t, 25)
	before, after := 0, 0
	for i := 1; i < len(all); i++ {
		old, now := all[i-1], all[i]
		for seed := range uint64(8) {
			r := rand.New(rand.NewPCG(uint64(i), seed))
			torn := append([]byte(nil), now.file...)
			for at := len(old.file); at < len(torn) && seed > 0; at = (at/sector + 1) * sector {
				if r.IntN(3) == 0 {
					clear(torn[at:min((at/sector+1)*sector, len(torn))])
				}
			}
			if seed%3 == 2 {
				torn = torn[:len(old.file)+r.IntN(len(torn)-len(old.file)+1)]
			}
			name := fmt.Sprintf("write %d, seed %d", i, seed)
			dir := memDir(t)
			if err := os.WriteFile(file(dir), torn, 0o600); err != nil {
				t.Fatal(err)
			}
			got := works(t, dir, []moment{old, now})
			switch {
			case maps.Equal(got, now.want):
				after++
			case maps.Equal(got, old.want):
				before++
			default:
				t.Errorf("%s: %d records, want the %d of before or the %d of after", name, len(got), len(old.want),
					len(now.want))
			}
			if bad := aside(t, dir); len(bad) > 0 {
				t.Errorf("%s: set aside: %v", name, bad)
			}
		}
	}
	t.Logf("%d files: %d as of before, %d as of after", 8*(len(all)-1), before, after)
	if before == 0 || after == 0 {
		t.Error("the test proves little")
	}
}

// A write of several batches may be there in part after a crash, and nothing of before is lost.
func TestPowerLossInALargeWrite(t *testing.T) {
	t.Parallel()
	dir := memDir(t)
	x := open(t, dir)
	first := access(60_000)
	if err := x.Write([]cache.Access{first}, []oci.Digest{access(60_001).Digest}); err != nil {
		t.Fatal(err)
	}
	if err := x.Write(accesses(50_000), nil); err != nil {
		t.Fatal(err)
	}
	whole := content(t, dir)
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{len(whole), len(whole) - 1, len(whole) / 2, 1000} {
		if err := os.WriteFile(file(dir), whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		got := recorded(t, open(t, dir))
		if got[first.Digest] != first {
			t.Errorf("cut at %d: what was recorded before is lost", size)
		}
		if n := len(got) - 1; n%10_000 != 0 || n*45 > size {
			t.Errorf("cut at %d: %d records of the large write", size, n)
		}
	}
}
