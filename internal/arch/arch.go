// Package arch holds the module's imports to its floors. Its test reads the import graph with go list and checks it
// against the table in the test; what is here is the checker, a pure function of graph and rules.
//
// Guarantees: an import that goes up or sideways, a package that is in no floor, and an import that a ban names are
// each reported in a sentence that says what to do. It does not look at black-box tests, which may import what they
// need, nor at what an imported package imports in turn.
package arch

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Package is one package of the module.
type Package struct {
	Path        string   // within the module: "cache/disk"
	Imports     []string // packages of the module, as Path
	Foreign     []string // packages of the standard library and of other modules
	TestImports []string // packages of the module that in-package tests import
}

// Rules are what the graph is held to. In all lists "a/b" is that package, "a/*" any package one element below a, and
// "a/**" is a and all below it.
type Rules struct {
	Floors [][]string // from the top down: a package imports only from floors below its own
	Aids   []string   // packages for tests, which only tests import
	Bans   []Ban
}

// Ban forbids packages an import, whatever the floors say.
type Ban struct {
	Who     []string // empty: all
	But     []string // except these
	Import  []string // packages of the module
	Foreign []string // packages of others
	Why     string   // ends the sentence "x imports y: ..."
}

// Check returns a sentence for everything in the graph that breaks the rules, sorted.
func Check(graph []Package, r Rules) []string {
	var broken []string
	for _, p := range graph {
		floor := r.Floor(p.Path)
		if floor < 0 {
			broken = append(broken, fmt.Sprintf(
				"%s is on no floor: add it to the table in internal/arch/arch_test.go, above all that it imports", p.Path))
			continue
		}
		for _, to := range p.Imports {
			if matchAny(r.Aids, to) && !matchAny(r.Aids, p.Path) {
				broken = append(broken, fmt.Sprintf("%s imports %s, which is for tests: import it in a test", p.Path, to))
			}
			broken = append(broken, r.down(p.Path, floor, to)...)
		}
		for _, to := range p.TestImports {
			if !matchAny(r.Aids, to) && to != p.Path {
				broken = append(broken, r.down(p.Path+" [test]", floor, to)...)
			}
		}
		for _, b := range r.Bans {
			broken = append(broken, b.check(p)...)
		}
	}
	slices.Sort(broken)
	return slices.Compact(broken)
}

// Floor is the index of a package's floor from the top, -1 where it has none.
func (r Rules) Floor(pkg string) int {
	return slices.IndexFunc(r.Floors, func(patterns []string) bool { return matchAny(patterns, pkg) })
}

// down checks one import against the floors. That of a package on no floor is reported once, for that package.
func (r Rules) down(from string, floor int, to string) []string {
	switch f := r.Floor(to); {
	case f < 0, f > floor:
		return nil
	case f == floor:
		return []string{fmt.Sprintf("%s imports %s on its own floor: declare an interface where it is used and let "+
			"internal/app join them, or move what both need down", from, to)}
	default:
		return []string{fmt.Sprintf("%s imports %s from a floor above: declare an interface where it is used and let "+
			"internal/app join them", from, to)}
	}
}

func (b Ban) check(p Package) (broken []string) {
	if len(b.Who) > 0 && !matchAny(b.Who, p.Path) || matchAny(b.But, p.Path) {
		return nil
	}
	for _, to := range p.Imports {
		if matchAny(b.Import, to) {
			broken = append(broken, fmt.Sprintf("%s imports %s: %s", p.Path, to, b.Why))
		}
	}
	for _, to := range p.Foreign {
		if matchAny(b.Foreign, to) {
			broken = append(broken, fmt.Sprintf("%s imports %s: %s", p.Path, to, b.Why))
		}
	}
	return broken
}

func matchAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, pkg) })
}

func match(pattern, pkg string) bool {
	if base, ok := strings.CutSuffix(pattern, "/**"); ok {
		return pkg == base || strings.HasPrefix(pkg, base+"/")
	}
	if base, ok := strings.CutSuffix(pattern, "/*"); ok {
		return path.Dir(pkg) == base
	}
	return pattern == pkg
}
