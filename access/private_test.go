package access_test

import (
	"errors"
	"iter"
	"log/slog"
	"testing"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/oci"
)

var (
	acme  = oci.Repo{Host: "docker.io", Name: "acme/app"}
	other = oci.Repo{Host: "docker.io", Name: "acme/other"}
	quiet = slog.New(slog.DiscardHandler)
)

func TestPrivateOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	table := statetest.NewTable()
	p := access.NewPrivate(table, quiet)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if p.Has(acme) {
		t.Error("private before anybody said so")
	}
	must(p.Add(acme))
	must(p.Add(acme))
	if n := table.Writes(); n != 1 {
		t.Errorf("%d writes, want 1", n)
	}
	for name, p := range map[string]*access.Private{"before": p, "after a start": access.NewPrivate(table, quiet)} {
		if !p.Has(acme) || p.Has(other) {
			t.Errorf("%s: %v, %v", name, p.Has(acme), p.Has(other))
		}
	}
	must(p.Remove(acme))
	must(p.Remove(other))
	if n := table.Writes(); n != 2 {
		t.Errorf("%d writes, want 2", n)
	}
	if p.Has(acme) || access.NewPrivate(table, quiet).Has(acme) {
		t.Error("still private")
	}
}

func TestNilPrivate(t *testing.T) {
	t.Parallel()
	var p *access.Private
	if err := errors.Join(p.Add(acme), p.Remove(acme)); err != nil || p.Has(acme) {
		t.Errorf("%v, %v", err, p.Has(acme))
	}
}

// bad is a table on a bad disk.
type bad struct {
	state.Table
	reads, writes bool
}

var errDisk = errors.New("input/output error")

func (b *bad) Scan(prefix string) iter.Seq2[state.Item, error] {
	if b.reads {
		return b.Table.Scan(prefix)
	}
	return func(yield func(state.Item, error) bool) { yield(state.Item{}, errDisk) }
}

func (b *bad) Write(items []state.Item) error {
	if b.writes {
		return b.Table.Write(items)
	}
	return errDisk
}

// A table that can't be read or written never lets a client read more.
func TestPrivateOnABadDisk(t *testing.T) {
	t.Parallel()
	p := access.NewPrivate(&bad{Table: statetest.NewTable(), writes: true}, quiet)
	if !p.Has(acme) || !p.Has(other) {
		t.Error("one that can't be looked up is not private")
	}
	if err := p.Remove(acme); err != nil || p.Has(acme) || !p.Has(other) {
		t.Errorf("shown by its upstream: %v; %v, %v", err, p.Has(acme), p.Has(other))
	}
	if err := p.Add(acme); err != nil || !p.Has(acme) {
		t.Errorf("private again: %v, %v", err, p.Has(acme))
	}

	b := &bad{Table: statetest.NewTable(), reads: true}
	p = access.NewPrivate(b, quiet)
	if err := p.Add(acme); !errors.Is(err, errDisk) || p.Has(acme) {
		t.Errorf("written in vain: %v, %v", err, p.Has(acme))
	}
	b.writes = true
	if err := p.Add(acme); err != nil {
		t.Fatal(err)
	}
	b.writes = false
	if err := p.Remove(acme); !errors.Is(err, errDisk) || !p.Has(acme) {
		t.Errorf("removed in vain: %v, %v", err, p.Has(acme))
	}
}
