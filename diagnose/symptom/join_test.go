package symptom_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/diagnose/symptom"
)

// many makes failures of one reason, each with its number in the image and host.
func many(n int, image, host string) (list []symptom.Failure) {
	for i := range n {
		number := func(s string) string { return strings.ReplaceAll(s, "#", fmt.Sprint(i)) }
		list = append(list, symptom.Failure{
			Reason: diagnose.CredentialsMissing, Host: number(host), Image: number(image), Count: 1,
		})
	}
	return list
}

// A text of many images, hosts and names costs no more than a few comparisons for each of them.
func TestJoinIsLinear(t *testing.T) {
	t.Parallel()
	const n = 20_000
	full := many(n, "a#.example/b#:c", "a#.example")
	for name, list := range map[string][]symptom.Failure{
		"images":         full,
		"without a tag":  slices.Concat(full, many(n, "a#.example/b#", "a#.example")),
		"short names":    slices.Concat(full, many(n, "b#", "")),
		"hosts":          slices.Concat(full, many(n, "", "a#.example")),
		"one repository": slices.Concat(many(n, "a.example/b:c#", "a.example"), many(1, "a.example/b", "a.example")),
	} {
		if _, pairs := symptom.Join(list); pairs > 2*n {
			t.Errorf("%s: %d pairs for %d entries", name, pairs, len(list))
		}
	}
}

// Beyond the bound on pairs the entries stay apart and are counted; below it they are joined.
func TestJoinBound(t *testing.T) {
	t.Parallel()
	for n, apart := range map[int]bool{100: false, 5000: true} {
		totals, pairs := symptom.Join(slices.Concat(many(n, "a#.example/b:c", "a#.example"), many(n, "", "auth.h#.example")))
		left := 0
		for i, total := range totals {
			if total == 0 && i < n {
				t.Fatalf("%d: image %d is lost", n, i)
			}
			if total > 0 && i >= n {
				left++
			}
		}
		if pairs > symptom.MostPairs || (left > 0) != apart || apart && pairs != symptom.MostPairs {
			t.Errorf("%d: %d pairs, %d entries without an image are left", n, pairs, left)
		}
	}
}

// The look-up finds the same pairs as comparing each pair.
func TestJoinFindsEachPair(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	joined := 0
	for range 3000 {
		var list []symptom.Failure
		for range 2 + r.IntN(8) {
			list = append(list, symptom.Failure{
				Count: 1 + r.Int64N(3), ID: pick("", "", "", "7f3a9c2e"),
				Image: pick("", "a.example/", "docker.io/", "docker.io/library/", "a:5000/", "x/", "docker.io/libraryteam/") +
					pick("", "team/app", "app", "x/team/app", "ap", "team") + pick("", "", ":1", "@sha256:00"),
				Reason: diagnose.TagNotFound, Host: pick("", "a.example", "docker.io", "registry-1.docker.io", "auth.a.example", "B.example"),
			})
		}
		want, got := symptom.JoinEach(list), symptom.JoinUnnamed(list)
		if !slices.Equal(want, got) {
			t.Fatalf("%v, want %v of\n%+v", got, want, list)
		}
		for i := range got {
			if got[i] < list[i].Count {
				joined++
			}
		}
	}
	if joined < 1000 {
		t.Errorf("only %d were joined", joined)
	}
}

// ReadContext stops when its context ends.
func TestReadContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, text := range []string{"Failed to pull image \"a.example/b:c\": 401 Unauthorized\n", `{"kind":"List","items":[{"kind":"Event"}]}`} {
		if r, err := symptom.ReadContext(ctx, strings.NewReader(text)); !errors.Is(err, context.Canceled) {
			t.Errorf("%v %v", r, err)
		}
	}
}
