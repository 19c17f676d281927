package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// results are the figures of all runs, by what was measured and of whom.
type results struct {
	runs map[string]map[string][]float64
	log  func(format string, args ...any)
}

func (r *results) add(key, subject string, v float64) {
	if r.runs[key] == nil {
		r.runs[key] = make(map[string][]float64)
	}
	r.runs[key][subject] = append(r.runs[key][subject], v)
	r.log("  %-18s %-14s %10.3f", key, subject, v)
}

// fail notes that what a figure would be measured on did not end well.
func (r *results) fail(key, subject string) { r.add(key, subject, math.Inf(1)) }

// median is NaN where nothing was measured, and infinite where most of it failed.
func (r *results) median(key, subject string) float64 { return median(r.runs[key][subject]) }

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	switch n := len(list); {
	case n == 0:
		return math.NaN()
	case n%2 == 1:
		return list[n/2]
	default:
		return (list[n/2-1] + list[n/2]) / 2
	}
}

// most is the largest of all runs: medians don't count for what must never happen.
func (r *results) most(key, subject string) float64 {
	list := r.runs[key][subject]
	if len(list) == 0 {
		return math.NaN()
	}
	return slices.Max(list)
}

// gate is a figure of the mirror and the most, or least, that it may be.
type gate struct {
	name    string
	figure  float64
	limit   float64
	atLeast bool
	unit    string // of figure and limit, as a verb of fmt
	how     string // what the figure is made of
}

func (g gate) passed() bool {
	if g.atLeast {
		return g.figure >= g.limit
	}
	return g.figure <= g.limit
}

func (g gate) verdict() string {
	if g.passed() {
		return "met"
	}
	return "**missed**"
}

func (g gate) bound() string {
	if g.atLeast {
		return "at least " + fmt.Sprintf(g.unit, g.limit)
	}
	return "at most " + fmt.Sprintf(g.unit, g.limit)
}

// gates are what the project promises of what is measured here.
func (r *results) gates() []gate {
	m := func(key string) float64 { return r.median(key, mirror) }
	over := func(key, than string) float64 { return m(key) / r.median(key, than) }
	wall := m("one.wall") + r.median("herd.wall", nginxStatic)
	bareRate := func(key string) gate {
		return gate{
			unit: "%.2fx", limit: 0.8, atLeast: true, figure: over(key, bare),
			how: fmt.Sprintf("%.0f/s of %.0f/s", m(key), r.median(key, bare)),
		}
	}
	digestRate, tagRate := bareRate("rate.digest"), bareRate("rate.tag")
	digestRate.name = "warm manifest by digest, of what a bare net/http handler answers"
	tagRate.name = "warm manifest by tag, of what a bare net/http handler answers"
	list := []gate{
		{
			"50 clients, cold, 100 MB, 50 MB/s for each connection: bytes from the upstream", r.most("herd.bytes", mirror), 1.005, false,
			"%.3fx", "the worst run; the image is 1x",
		},
		{
			"the same: first byte, median client after a single one", 1000 * (m("herd.first") - m("one.first")), 50, false, "%.0f ms",
			fmt.Sprintf("%.0f ms, a single client %.0f ms", 1000*m("herd.first"), 1000*m("one.first")),
		},
		{
			"the same: first byte, slowest client after a single one", 1000 * (m("herd.worst") - m("one.first")), 150, false, "%.0f ms",
			fmt.Sprintf("%.0f ms", 1000*m("herd.worst")),
		},
		{
			"the same: all done, against a single cold pull and 50 from warm nginx one after the other", m("herd.wall") / wall, 1.3, false,
			"%.2fx", fmt.Sprintf("%.2f s; %.2f s + %.2f s", m("herd.wall"), m("one.wall"), r.median("herd.wall", nginxStatic)),
		},
		{
			"cold pull against straight, 50 MB/s for each connection", over("cold.limited", direct), 1.02, false, "%.2fx",
			fmt.Sprintf("%.2f s, %.2f s", m("cold.limited"), r.median("cold.limited", direct)),
		},
		{
			"cold pull against straight, unlimited loopback, 512 MiB", over("cold.unlimited", direct), 1.8, false, "%.2fx",
			fmt.Sprintf("%.2f s, %.2f s", m("cold.unlimited"), r.median("cold.unlimited", direct)),
		},
		{
			"warm blob, CPU for each GiB, against nginx with sendfile", over("cpu.plain", nginxStatic), 1.1, false, "%.2fx",
			fmt.Sprintf("%.3f s, %.3f s", m("cpu.plain"), r.median("cpu.plain", nginxStatic)),
		},
		{
			"the same under TLS, against nginx", over("cpu.tls", nginxStatic), 1.3, false, "%.2fx",
			fmt.Sprintf("%.3f s, %.3f s", m("cpu.tls"), r.median("cpu.tls", nginxStatic)),
		},
		digestRate, tagRate,
	}
	for _, tls := range []struct{ key, name string }{{"thousand", ""}, {"thousand.tls", " under TLS"}} {
		what := "1,000 clients" + tls.name + ", one cold image of 4 blobs: "
		list = append(list,
			gate{what + "bytes from the upstream", r.most(tls.key+".bytes", mirror), 1.005, false, "%.3fx", "the worst run"},
			gate{what + "GETs of manifests", r.most(tls.key+".manifests", mirror), 1, false, "%.0f", "the worst run"},
			gate{what + "GETs of blobs", r.most(tls.key+".blobs", mirror), 4, false, "%.0f", "the worst run"},
			gate{what + "tokens", r.most(tls.key+".tokens", mirror), 1, false, "%.0f", "the worst run"},
			gate{what + "memory", m(tls.key + ".rss"), 300, false, "%.0f MiB", "VmHWM"},
		)
	}
	list = append(list,
		gate{
			"cold pull from 20 MB/s for each connection, 512 MiB: faster than straight over one", 1 / over("slow.wall", direct), 3, true,
			"%.2fx", fmt.Sprintf("%.1f s, %.1f s", m("slow.wall"), r.median("slow.wall", direct)),
		},
		gate{"the same: bytes from the upstream", r.most("slow.bytes", mirror), 1.005, false, "%.3fx", "the worst run"},
		gate{
			"the same with 100 MB, the first large blob of the upstream: faster than straight over one",
			1 / over("known.first", direct), 2, true, "%.2fx",
			fmt.Sprintf("%.1f s, %.1f s", m("known.first"), r.median("known.first", direct)),
		},
		gate{
			"the same with 100 MB, the second: faster than straight over one", 1 / over("known.second", direct), 3, true, "%.2fx",
			fmt.Sprintf("%.1f s, %.1f s", m("known.second"), r.median("known.second", direct)),
		},
		gate{
			"the same with 512 MiB, the third: faster than straight over one", r.median("slow.wall", direct) / m("known.huge"), 6, true,
			"%.2fx", fmt.Sprintf("%.1f s, %.1f s", m("known.huge"), r.median("slow.wall", direct)),
		},
		gate{"all three: bytes from the upstream", r.most("known.bytes", mirror), 1.005, false, "%.3fx", "the worst run"},
		gate{
			"cold pull of 100 MB from an upstream that cuts after every 20 MB: bytes from the upstream", r.most("cut.bytes", mirror),
			1.02, false, "%.3fx", "the worst run; it succeeds",
		},
		gate{
			"cold pull of 100 MB at 50 MB/s beside a warm-up, against alone", m("warm.beside") / m("warm.alone"), 1.05, false, "%.3fx",
			fmt.Sprintf("%.2f s, %.2f s; alone twice: %.3fx", m("warm.beside"), m("warm.alone"), m("warm.again")/m("warm.alone")),
		},
		gate{
			fmt.Sprintf("warm-up of %d images of %d MB: faster than crane copies the list", warmImages, warmLayers*warmLayer/mb),
			1 / over("warm.list", crane), 2, true, "%.2fx", fmt.Sprintf("%.2f s, %.2f s", m("warm.list"), r.median("warm.list", crane)),
		},
		gate{"10 GiB blob, 50 cold clients of mixed speeds: most heap", m("giant.heap"), 64, false, "%.0f MiB", "heap in use, looked at 4 times a second"},
		gate{"the same: bytes from the upstream", r.most("giant.bytes", mirror), 1.005, false, "%.3fx", "the worst run"},
		gate{"10,000 idle connections: memory", m("idle.rss"), 300, false, "%.0f MiB", "VmHWM"},
	)
	return list
}

// row is a line of the comparison.
type row struct {
	name, key, unit string
	scale           float64
	most            bool
}

var rows = []row{
	{"one cold client, 100 MB at 50 MB/s: first byte", "one.first", "%.0f ms", 1000, false},
	{"one cold client, 100 MB at 50 MB/s: done", "one.wall", "%.2f s", 1, false},
	{"50 cold clients, 100 MB at 50 MB/s: bytes from the upstream", "herd.bytes", "%.2fx", 1, true},
	{"50 cold clients: first byte, median client", "herd.first", "%.0f ms", 1000, false},
	{"50 cold clients: first byte, slowest client", "herd.worst", "%.0f ms", 1000, false},
	{"50 cold clients: all done", "herd.wall", "%.2f s", 1, false},
	{"cold pull with digest check, 100 MB at 50 MB/s", "cold.limited", "%.2f s", 1, false},
	{"cold pull with digest check, 512 MiB unlimited", "cold.unlimited", "%.2f s", 1, false},
	{"warm blob: CPU of the server for each GiB", "cpu.plain", "%.2f s", 1, false},
	{"the same under TLS", "cpu.tls", "%.2f s", 1, false},
	{"warm manifest by digest", "rate.digest", "%.0f/s", 1, false},
	{"warm manifest by tag", "rate.tag", "%.0f/s", 1, false},
	{"1,000 cold clients: all done", "thousand.wall", "%.1f s", 1, false},
	{"1,000 cold clients: bytes from the upstream", "thousand.bytes", "%.2fx", 1, true},
	{"1,000 cold clients: GETs of 1 manifest", "thousand.manifests", "%.0f", 1, true},
	{"1,000 cold clients: GETs of 4 blobs", "thousand.blobs", "%.0f", 1, true},
	{"1,000 cold clients: tokens", "thousand.tokens", "%.0f", 1, true},
	{"1,000 cold clients: most memory", "thousand.rss", "%.0f MiB", 1, false},
	{"1,000 cold clients under TLS: all done", "thousand.tls.wall", "%.1f s", 1, false},
	{"1,000 cold clients under TLS: most memory", "thousand.tls.rss", "%.0f MiB", 1, false},
	{"cold pull with digest check, 512 MiB at 20 MB/s for each connection", "slow.wall", "%.1f s", 1, false},
	{"the same: bytes from the upstream", "slow.bytes", "%.2fx", 1, true},
	{"first cold pull of 100 MB at 20 MB/s for each connection", "known.first", "%.1f s", 1, false},
	{"the second, of another image", "known.second", "%.1f s", 1, false},
	{"the third, 512 MiB", "known.huge", "%.1f s", 1, false},
	{"all three: bytes from the upstream", "known.bytes", "%.2fx", 1, true},
	{"cold pull of 100 MB, cut after every 20 MB", "cut.wall", "%.2f s", 1, false},
	{"the same: bytes from the upstream", "cut.bytes", "%.2fx", 1, true},
	{"cold pull with digest check, 100 MB at 50 MB/s, beside a warm-up", "warm.beside", "%.2f s", 1, false},
	{"warm-up of a list of images at 50 MB/s", "warm.list", "%.2f s", 1, false},
	{"10 GiB, 50 cold clients of mixed speeds: most memory", "giant.rss", "%.0f MiB", 1, false},
	{"the same: the three at full speed done", "giant.wall", "%.0f s", 1, false},
	{"the same: bytes from the upstream", "giant.bytes", "%.1fx", 1, true},
	{"10,000 idle connections: most memory", "idle.rss", "%.0f MiB", 1, false},
}

// markdown is both tables.
func (r *results) markdown() string {
	var b strings.Builder
	b.WriteString("| what | figure | gate | verdict | of |\n|---|---|---|---|---|\n")
	for _, g := range r.gates() {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", g.name, fmt.Sprintf(g.unit, g.figure), g.bound(), g.verdict(), g.how)
	}
	columns := []string{mirror, direct, distribution, nginxCache, nginxStatic, bare}
	b.WriteString("\n| |")
	for _, c := range columns {
		b.WriteString(" " + c + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, row := range rows {
		b.WriteString("| " + row.name + " |")
		for _, c := range columns {
			v := r.median(row.key, c)
			if row.most {
				v = r.most(row.key, c)
			}
			switch {
			case math.IsNaN(v):
				b.WriteString(" |")
			case math.IsInf(v, 1):
				b.WriteString(" fails |")
			default:
				fmt.Fprintf(&b, " "+row.unit+" |", v*row.scale)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
