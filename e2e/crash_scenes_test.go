package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/registrymirror/mirror/e2e/internal/crash"
)

// scene is how a process comes to a point.
type scene struct {
	point string
	most  int // it dies at one of the first so many times that it comes there, which it surely does; 0: the first
	at    int // or at exactly this time
	drive drive
	cache string // more keys of the mapping cache; with a small budget content goes
	// clean has the life before end well. After another one all content is looked at and synced in the background, which
	// may come to the point early, or keep the process from coming there at all.
	clean bool
	// prepare does something to the data folder after the life before.
	prepare func(context.Context, *stage) error
	damages bool // content was damaged: it goes
	// later does something to it after the death: not the process alone has died, the machine has.
	later func(*stage) error
}

// drive is what has to happen for it.
type drive int

const (
	byPulls   drive = iota // clients pull
	atStart                // it starts
	byStop                 // it is told to stop
	byReload               // it is told to read its configuration again
	byTime                 // a minute passes
	byLeaving              // a client leaves in the middle of a layer, and it is told to stop
)

func (d drive) String() string {
	return map[drive]string{atStart: "-start", byStop: "-stop", byReload: "-reload", byTime: "-later", byLeaving: "-left"}[d]
}

func (s scene) name() string {
	name := strings.ReplaceAll(s.point, "/", "-")
	if s.at > 0 {
		name += fmt.Sprintf("-%d", s.at)
	}
	return name + s.harm() + s.drive.String()
}

// harm is what is done to the folder besides.
func (s scene) harm() string {
	switch {
	case s.later != nil:
		return "-lost"
	case s.damages:
		return "-damaged"
	}
	return ""
}

const (
	strict = "durability: strict"
	// small holds the life before up to 90 %, and not what the next one pulls.
	small = "size: 13MiB"
)

var scenes = []scene{
	{point: "disk/locked", drive: atStart},
	{point: "disk/swept", drive: atStart, most: 3, prepare: litter},
	{point: "disk/note", drive: atStart},
	{point: "disk/note", drive: byStop, at: 2, clean: true},
	{point: "disk/noted", drive: atStart},
	{point: "disk/noted", drive: byStop, at: 2, clean: true},
	{point: "disk/suspect", drive: atStart, most: 6, prepare: loseMachine},
	{point: "disk/suspect-hashed", drive: atStart, most: 6, prepare: loseMachine},
	{point: "disk/suspect", drive: atStart, most: 6, prepare: damage, damages: true},
	{point: "disk/suspect-removed", drive: atStart, prepare: damage, damages: true},
	{point: "disk/settled", drive: atStart, prepare: loseMachine},
	{point: "disk/resumed", drive: atStart, prepare: unfinished},
	{point: "recency/aside", drive: atStart, prepare: scribbleIndex},
	{point: "recency/snapshot", drive: atStart, prepare: scribbleIndex},
	{point: "recency/renamed", drive: atStart, prepare: scribbleIndex},
	{point: "state/aside", drive: atStart, prepare: scribbleState},
	{point: "state/copied", drive: atStart, prepare: scribbleState},
	{point: "state/copy-checked", drive: atStart, prepare: scribbleState},
	{point: "state/copy-renamed", drive: atStart, prepare: scribbleState},
	{point: "cache/loaded", drive: atStart},
	{point: "cache/loaded", drive: atStart, later: loseLayer, damages: true},

	{point: "disk/spooled", most: 6},
	{point: "disk/allocated", most: 6},
	{point: "flight/opened", most: 6},
	{point: "flight/wrote", at: 1},
	{point: "flight/wrote", most: 20},
	{point: "flight/hashing", most: 18},
	{point: "flight/fetched", most: 6},
	{point: "flight/hashed", most: 6},
	{point: "flight/right", most: 6},
	{point: "disk/commit", most: 8},
	{point: "disk/trimmed", most: 8},
	{point: "disk/folder", most: 8},
	{point: "disk/synced", most: 8, cache: strict},
	{point: "disk/renamed", most: 8},
	{point: "disk/folder-synced", most: 8, cache: strict},
	{point: "flight/committed", most: 6},
	{point: "flight/committed", most: 6, later: loseLayer, damages: true},

	{point: "pull/fetched", most: 3},
	{point: "cache/put", most: 3},
	{point: "pull/put", most: 3},
	{point: "catalog/learn", most: 3},
	{point: "catalog/learnt", most: 3},
	{point: "pull/learnt", most: 3},
	{point: "catalog/move", most: 2},
	{point: "catalog/moved", most: 2},
	{point: "pull/recorded"},
	{point: "catalog/flushed", drive: byStop},
	{point: "state/tx", most: 4},
	{point: "state/in-tx", most: 4},
	{point: "state/committed", most: 4},

	{point: "disk/sync", drive: byStop, clean: true},
	{point: "disk/sync", drive: atStart, prepare: loseMachine},
	{point: "disk/syncfs", drive: byStop, clean: true},
	{point: "disk/syncfs", drive: atStart, prepare: loseMachine},
	{point: "disk/marked", drive: byStop, clean: true, most: 6},
	{point: "disk/marked", drive: atStart, most: 6, prepare: loseMachine},
	{point: "cache/evict", most: 2, cache: small},
	{point: "disk/unlink", most: 2, cache: small},
	{point: "disk/unlinked", most: 2, cache: small},
	{point: "cache/evicted", most: 2, cache: small},
	{point: "recency/append", drive: byStop},
	{point: "recency/appended", drive: byStop},
	{point: "recency/synced", drive: byStop},
	{point: "state/copied", drive: byTime},
	{point: "state/copy-checked", drive: byTime},
	{point: "state/copy-renamed", drive: byTime},

	{point: "serve/reload", drive: byReload},
	{point: "serve/reloaded", drive: byReload},
	{point: "disk/kept", drive: byLeaving},
	{point: "disk/kept", drive: byLeaving, later: loseSpool},
	{point: "disk/closing", drive: byStop, clean: true},
	{point: "disk/closing", drive: byLeaving, clean: true},
	{point: "disk/closing", drive: byLeaving, clean: true, later: loseSpool},
	{point: "disk/clean", drive: byStop, clean: true},
	{point: "disk/clean", drive: byLeaving, clean: true},
	{point: "serve/stopped", drive: byStop},
}

// litter leaves files in the spool, as a killed mirror does.
func litter(_ context.Context, g *stage) error {
	for i := range 4 {
		file := filepath.Join(g.data, "spool", fmt.Sprintf("LEFT%d", i))
		if err := os.WriteFile(file, make([]byte, g.rng.IntN(1<<20)), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// loseMachine has the life before end as the machine crashes, with nothing known to be on disk. It loses no byte, as it
// happens.
func loseMachine(ctx context.Context, g *stage) error { return g.loseRunning(ctx) }

// damage has it crash and lose a bit of a layer.
func damage(ctx context.Context, g *stage) error {
	if err := g.loseRunning(ctx); err != nil {
		return err
	}
	return g.flip()
}

// loseRunning starts a mirror and has the machine crash under it.
func (g *stage) loseRunning(ctx context.Context) error {
	m, err := g.launch(ctx, false)
	if err != nil {
		return err
	}
	defer m.End()
	if err := died(m); err != nil {
		return err
	}
	return crash.LoseMachine(g.data)
}

func (g *stage) flip() error {
	layers := g.kept.versions[0].Layers[0]
	layer := layers[g.rng.IntN(len(layers))]
	return crash.Flip(g.data, layer.Digest, g.rng.Int64N(layer.Size))
}

// loseLayer has the machine crash and lose a bit of a layer.
func loseLayer(g *stage) error { return errors.Join(crash.LoseMachine(g.data), g.flip()) }

// loseSpool has it lose a bit of each unfinished download.
func loseSpool(g *stage) error {
	return errors.Join(crash.LoseMachine(g.data), crash.FlipSpool(g.data))
}

func scribbleIndex(_ context.Context, g *stage) error {
	return crash.Scribble(filepath.Join(g.data, "recency.bin"))
}

// scribbleState damages the state after its daily copy.
func scribbleState(_ context.Context, g *stage) error {
	state := filepath.Join(g.data, "state.db")
	b, err := os.ReadFile(state)
	if err != nil {
		return err
	}
	if err := os.WriteFile(state+".good", b, 0o600); err != nil {
		return err
	}
	return crash.Scribble(state)
}

// unfinished has a life end in order in the middle of a download, which the next one may go on with.
func unfinished(ctx context.Context, g *stage) error {
	m, err := g.launch(ctx, false)
	if err != nil {
		return err
	}
	defer m.End()
	if err := g.leave(ctx, m); err != nil {
		return err
	}
	if !m.End() {
		return errors.New("it did not stop when it was asked to")
	}
	left, err := crash.Spooled(g.data)
	if err == nil && len(left) == 0 {
		err = errors.New("it stopped cleanly and left nothing of the unfinished download")
	}
	return err
}
