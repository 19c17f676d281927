package faults_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/registrymirror/mirror/oci"
)

// row is a numbered fault of the matrix.
type row struct {
	id, what string
	// share is how many of a hundred trials of an ordinary row it gets; 0: 100.
	share int
	huge  bool // it is played with a large blob too
	// plan decides what goes wrong in a trial, and may change what was drawn for it. Nil: the row is not run here.
	plan func(tr *trial)
	// shown names the tests that show the row, where it isn't run here or where they show more of it; or says why no test
	// does.
	shown string
}

// crowd is how many clients pull at the same time.
type crowd string

const (
	one   crowd = "one"
	fifty crowd = "fifty"
	late  crowd = "late" // one, and another once the first has half of the blob
)

// trial is one run of a row, all of it drawn from its seed.
type trial struct {
	row  *row
	seed uint64
	r    *rand.Rand

	size     int64
	crowd    crowd
	together bool // all fifty come at once
	tagged   bool // clients have pulled the manifest: the mirror knows that the blob is there, and its size
	wiring   wiring
	clients  []behaviour // in turn

	// The plan sets the fields below.
	script    func(w *world)                      // before the first client
	during    func(ctx context.Context, w *world) // beside the clients, until the last is done
	check     func(pulls []*pulling, v *verdict)  // when the clients are done
	after     func(w *world)                      // when the clients are done, before the faults are over
	heal      func(w *world)                      // ends what script began, in addition to its rules
	run       func(tr *trial, w *world) verdict   // instead of clients that pull the blob
	resumable bool                                // clients must not notice
	liar      bool                                // the upstream sends wrong bytes
	repeats   int64                               // bytes that may be fetched again, beyond what is in transit
	breaks    int                                 // transfers that break or answer otherwise than asked; -1: all do
	transit   int64                               // bytes that each of them may cost; 0: those in transit
	noHeal    bool                                // the fault stays
}

// verdict is the result of a trial.
type verdict struct {
	clients, seamless int      // that stayed, and those of them that noticed nothing
	wrong             []string // broken promises, in words
	noticed           []string // breaks that were seen
	fetched, size     int64    // bytes of the blob that were fetched, and its size
}

func (v *verdict) fail(format string, args ...any) {
	v.wrong = append(v.wrong, fmt.Sprintf(format, args...))
}

const huge = 300 << 20

// newTrial draws a trial. large has it draw one of 300 MiB.
func newTrial(r *row, seed uint64, large bool) *trial {
	tr := &trial{row: r, seed: seed, r: rand.New(rand.NewPCG(seed, mix(r.id)))}
	switch n := tr.r.IntN(100); {
	case large:
		tr.size = huge
	case n < 43:
		tr.size = 1 << 10
	case n < 86:
		tr.size = 64<<10 + int64(tr.r.IntN(3)) - 1
	case n < 92:
		tr.size = 1 + tr.r.Int64N(300<<10)
	default:
		tr.size = 5 << 20
	}
	switch n := tr.r.IntN(100); {
	case n < 50:
		tr.crowd = one
	case n < 88:
		tr.crowd = late
	default:
		tr.crowd = fifty
	}
	tr.together = tr.r.IntN(2) == 0
	if tr.size > 1<<20 && tr.crowd == fifty && tr.r.IntN(4) > 0 {
		tr.crowd = late
	}
	tr.tagged = tr.r.IntN(2) == 0
	tr.wiring.buffer = []int{4 << 10, 64 << 10, 64 << 10, 256 << 10}[tr.r.IntN(4)]
	tr.wiring.origin.Redirect = tr.r.IntN(2) == 0
	if tr.r.IntN(4) == 0 {
		tr.wiring.origin.Rate = int(max(1000, tr.size/int64(1+tr.r.IntN(3))))
	}
	if tr.r.IntN(3) == 0 {
		tr.wiring.parallel = 1 << 20
	}
	if large {
		tr.wiring.buffer, tr.wiring.origin.Rate, tr.wiring.parallel = 256<<10, 0, 64<<20
	}
	for range 50 {
		tr.clients = append(tr.clients, everyone[tr.r.IntN(len(everyone))])
	}
	r.plan(tr)
	if large && tr.crowd == fifty { // fifty of them, five of which want the whole blob
		for i := range tr.clients {
			if i%10 > 0 {
				tr.clients[i] = []behaviour{ranges, leaves}[i%2]
			}
		}
	}
	return tr
}

// mix gives each row other random numbers.
func mix(s string) uint64 {
	h := fnv.New64()
	_, _ = h.Write([]byte(s))
	return h.Sum64()
}

// files lists all files below a folder.
func files(dir string) (list []string) {
	_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if rel, rerr := filepath.Rel(dir, path); err == nil && rerr == nil && !e.IsDir() {
			list = append(list, rel)
		}
		return nil
	})
	return list
}

// String describes a trial in a failure message.
func (tr *trial) String() string {
	return fmt.Sprintf("%s seed %d: %d bytes, %s, first client %s, known by a manifest %t, redirect %t, rate %d, buffer %d",
		tr.row.id, tr.seed, tr.size, tr.crowd, tr.clients[0].name, tr.tagged, tr.wiring.origin.Redirect,
		tr.wiring.origin.Rate, tr.wiring.buffer)
}

// command repeats the trial alone.
func (tr *trial) command() string {
	s := fmt.Sprintf("go test ./internal/faults -run TestMatrix -only %s -seed %d -trials 1", tr.row.id, tr.seed)
	if tr.size == huge {
		s += " -large 1"
	}
	return s
}

// play runs the trial in a bubble of its own.
func (tr *trial) play(t *testing.T) (v verdict) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, tr.wiring)
		v = tr.playIn(w)
		if err := w.stop(); err != nil {
			v.fail("%v", err)
		}
		v.wrong = append(v.wrong, w.wrong...)
	})
	return v
}

// lifetime is how long a client may take: one that has seen neither an end nor a break by then hangs.
const lifetime = 2 * time.Hour

func (tr *trial) playIn(w *world) verdict {
	c := newContent(tr.size, tr.seed%3)
	if c.bytes != nil {
		w.up.AddBlobAs(repo, c.digest, c.bytes)
	} else {
		w.up.AddContent(repo, c.digest, c)
	}
	m := manifestOf(c)
	w.up.AddManifest(repo, "v1", ocispec.MediaTypeImageManifest, m)
	if tr.run != nil {
		return tr.run(tr, w)
	}
	if tr.tagged {
		if err := w.get(manifestURL("v1")); err != nil {
			return verdict{wrong: []string{fmt.Sprintf("pull of the manifest, before anything is wrong: %v", err)}}
		}
	}
	if tr.script != nil {
		tr.script(w)
	}
	ctx, cancel := context.WithTimeout(context.Background(), lifetime)
	defer cancel()
	var beside sync.WaitGroup
	while, done := context.WithCancel(ctx)
	if tr.during != nil {
		beside.Go(func() { tr.during(while, w) })
	}
	pulls := tr.pull(ctx, w, c)
	done()
	beside.Wait()
	if *show {
		for _, q := range w.up.Requests() {
			fmt.Fprintf(os.Stderr, "   %s %s %s %q %q: %d, from %d, %d bytes\n", q.When.Format("04:05.000"), q.Role, q.Method,
				q.Path[strings.LastIndexByte(q.Path, '/')+1:], q.Header.Get("Range"), q.Status, q.From, q.Bytes)
		}
	}
	v := verdict{size: c.size}
	whole := false
	for i, p := range pulls {
		b := tr.clients[i]
		whole = whole || b.whole
		if ctx.Err() != nil {
			v.fail("client %d (%s) hangs", i, b.name)
		}
		for _, s := range p.wrong {
			v.fail("client %d (%s): %s", i, b.name, s)
		}
		if p.left {
			continue
		}
		v.clients++
		if len(p.broken) == 0 {
			v.seamless++
		}
		for _, s := range p.broken {
			v.noticed = append(v.noticed, fmt.Sprintf("client %d (%s): %s", i, b.name, s))
		}
	}
	tr.countBytes(w, c, &v, pulls)
	if tr.check != nil {
		tr.check(pulls, &v)
	}
	if tr.after != nil {
		tr.after(w)
	}
	tr.recover(w, c, &v)
	return v
}

// pull has all clients pull, and returns when the last is done.
func (tr *trial) pull(ctx context.Context, w *world, c *content) []*pulling {
	n := map[crowd]int{one: 1, late: 2, fifty: 50}[tr.crowd]
	half := make(chan struct{})
	var once sync.Once
	var wg sync.WaitGroup
	pulls := make([]*pulling, n)
	for i := range n {
		p := &pulling{w: w, c: c, liar: tr.liar, r: rand.New(rand.NewPCG(tr.seed, uint64(i)+10))}
		pulls[i] = p
		if i == 0 {
			p.half = func() { once.Do(func() { close(half) }) }
		}
		wg.Go(func() {
			switch {
			case tr.crowd == late && i == 1:
				<-half
			case tr.crowd == fifty && !tr.together:
				sleep(ctx, time.Duration(p.r.IntN(3000))*time.Millisecond)
			}
			start := time.Now()
			_ = tr.clients[i].run(ctx, p)
			p.took = time.Since(start)
			if i == 0 {
				p.half()
			}
		})
	}
	wg.Wait()
	return pulls
}

// inTransit is how many bytes a break may cost: those in the buffers of either side.
const inTransit = 1 << 20

// refusals is how many bytes an answer of another kind may have.
const refusals = 1 << 10

// countBytes compares the upstream's log with the bytes that a download may cost.
func (tr *trial) countBytes(w *world, c *content, v *verdict, pulls []*pulling) {
	requests := int64(0)
	for _, q := range w.up.Requests() {
		if q.Ref == c.digest.String() && q.Method == http.MethodGet {
			requests++
			v.fetched += q.Bytes
		}
	}
	breaks := int64(tr.breaks)
	if tr.breaks < 0 {
		breaks = requests
	}
	most := c.size + breaks*cmp.Or(tr.transit, min(c.size, inTransit)) + tr.repeats + requests*refusals
	if slices.ContainsFunc(tr.clients, func(b behaviour) bool { return b.name == ranges.name || b.name == chunks.name }) {
		// A range just before the fill cuts it. Bytes in transit behind the cut are lost, and fetched again after the range.
		most += 2 * int64(tr.wiring.buffer)
	}
	if tr.liar { // fetched once more at once; if that is wrong too, not for a minute
		var took time.Duration
		for _, p := range pulls {
			took = max(took, p.took)
		}
		most += (2 + 2*int64(took/time.Minute)) * c.size
	}
	if v.fetched > most {
		v.fail("%d bytes of %d were fetched in %d requests, at most %d would do", v.fetched, c.size, requests, most)
	}
}

// recover ends all faults and checks that everything works without help.
func (tr *trial) recover(w *world, c *content, v *verdict) {
	if tr.noHeal {
		return
	}
	w.up.ClearRules()
	w.up.Up()
	if tr.heal != nil {
		tr.heal(w)
	}
	if w.store != nil {
		w.store.EndFaults()
	}
	time.Sleep(3 * time.Minute)
	ctx, cancel := context.WithTimeout(context.Background(), lifetime)
	defer cancel()
	for i := range 2 {
		p := &pulling{w: w, c: c, liar: tr.liar, r: tr.r}
		_ = plain.run(ctx, p)
		if tr.liar && len(p.wrong) == 0 && len(p.broken) > 0 && i == 0 {
			// Wrong bytes were kept as a part of a download without readers. They have been found out; clients that come within
			// a minute are told so.
			time.Sleep(2 * time.Minute)
			continue
		}
		for _, s := range slices.Concat(p.wrong, p.broken) {
			v.fail("pull %d after the faults were over: %s", i+1, s)
		}
	}
}

// get asks the mirror for a document, and reads it.
func (w *world) get(url string) error {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := w.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s", res.Status, res.Header.Get("Mirror-Reason"))
	}
	return nil
}

// manifestOf is an image's, with a blob as its only layer.
func manifestOf(c *content) []byte {
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.DescriptorEmptyJSON,
		Layers:    []oci.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: c.digest, Size: c.size}},
	}
	m.SchemaVersion = 2
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// offsets are where bodies are cut, if they are long enough.
func (tr *trial) offset() int64 {
	all := []int64{0, 1, 511, 512, 4095, 64 << 10, 1<<20 - 1, 1 << 20, tr.size / 2, tr.size - 1, tr.size}
	for {
		if at := all[tr.r.IntN(len(all))]; at <= tr.size {
			return at
		}
	}
}
