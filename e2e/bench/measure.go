package main

import (
	"context"
	"fmt"
	"time"
)

const (
	mb        = 1_000_000
	slowRate  = 50 * mb // bytes per second of each connection of the upstream
	lowRate   = 20 * mb // the same, where that is the matter
	cutAfter  = 20 * mb
	herdSize  = 50
	thousand  = 1000
	warmBytes = 4 << 30
	warmConns = 4
	loadConns = 32
	loadTurns = 20
	loadTime  = 250 * time.Millisecond
)

// images are what is pulled.
type images struct {
	big   *image // 100 MB in one layer
	next  *image // the same size, with other bytes
	huge  *image // 512 MiB in one layer
	small *image // three layers below parallelAbove
}

// measurements in the order in which they run and are shown.
type measurement struct {
	name string
	run  func(ctx context.Context, l *lab, x images, into *results) error
	once bool // in the first run alone: it takes minutes, and what it measures hardly varies
}

var measurements = []measurement{
	{"herd", measureHerd, false},
	{"cold", measureCold, false},
	{"cpu", measureCPU, false},
	{"rate", measureRate, false},
	{"thousand", measureThousand, false},
	{"slow", measureSlow, false},
	{"known", measureKnown, false},
	{"cut", measureCut, false},
	{"warm", measureWarm, false},
	{"giant", measureGiant, true},
	{"idle", measureIdle, false},
}

// kind is what an upstream is like, and how the subject is reached.
type kind struct {
	rate int64 // bytes per second of each connection; 0: as fast as sendfile goes
	cut  int64 // bytes after which it closes a blob's connection; 0: never
	auth bool
	tls  bool // of the subject
}

// with starts a subject in front of a fresh upstream, runs do and stops both.
func with(ctx context.Context, l *lab, name string, k kind, do func(up, s *subject) error) error {
	up, err := l.upstream(ctx, k)
	if err != nil {
		return err
	}
	defer up.stop()
	s, err := l.start(ctx, name, up, k.tls)
	if err != nil {
		return err
	}
	defer s.stop()
	if err := do(up, s); err != nil {
		if s.proc != nil {
			err = fmt.Errorf("%w\n%s", err, s.proc.Tail())
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// measureHerd: 50 clients pull 100 MB at once that are not cached, from an upstream that gives each connection 50 MB/s; and
// one client alone, for comparison.
func measureHerd(ctx context.Context, l *lab, x images, into *results) error {
	for _, name := range []string{direct, distribution, nginxCache, nginxStatic, mirror} {
		err := with(ctx, l, name, kind{rate: slowRate}, func(up, s *subject) error {
			one, err := pullHerd(ctx, 1, s.base, s.ca, false, x.big)
			if err != nil {
				return err
			}
			into.add("one.wall", name, one.wall.Seconds())
			into.add("one.first", name, one.first[0].Seconds())
			return nil
		})
		if err != nil {
			return err
		}
		err = with(ctx, l, name, kind{rate: slowRate}, func(up, s *subject) error {
			h, err := pullHerd(ctx, herdSize, s.base, s.ca, false, x.big)
			if err != nil {
				return err
			}
			st, err := stats(ctx, up)
			if err != nil {
				return err
			}
			into.add("herd.wall", name, h.wall.Seconds())
			into.add("herd.first", name, h.median().Seconds())
			into.add("herd.worst", name, h.worst().Seconds())
			into.add("herd.bytes", name, float64(st.Bytes)/float64(x.big.bytes()))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// measureCold: one client, that checks digests, pulls an image that is not cached.
func measureCold(ctx context.Context, l *lab, x images, into *results) error {
	for _, c := range []struct {
		key   string
		rate  int64
		image *image
	}{{"cold.limited", slowRate, x.big}, {"cold.unlimited", 0, x.huge}} {
		for _, name := range []string{direct, distribution, nginxCache, mirror} {
			err := with(ctx, l, name, kind{rate: c.rate}, func(_, s *subject) error {
				h, err := pullHerd(ctx, 1, s.base, s.ca, true, c.image)
				into.add(c.key, name, h.wall.Seconds())
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// measureCPU: what a server spends on each GiB that it has already.
func measureCPU(ctx context.Context, l *lab, x images, into *results) error {
	for _, tls := range []bool{false, true} {
		key, names := "cpu.plain", []string{distribution, nginxCache, nginxStatic, mirror}
		if tls {
			key, names = "cpu.tls", []string{nginxCache, nginxStatic, mirror}
		}
		for _, name := range names {
			err := with(ctx, l, name, kind{tls: tls}, func(_, s *subject) error {
				if _, err := pullHerd(ctx, 1, s.base, s.ca, false, x.big); err != nil {
					return err
				}
				before, err := cpu(s.proc.Pid())
				if err != nil {
					return err
				}
				n, err := download(ctx, warmConns, warmBytes, s.base, s.ca, x.big)
				if err != nil {
					return err
				}
				after, err := cpu(s.proc.Pid())
				into.add(key, name, (after-before).Seconds()/(float64(n)/(1<<30)))
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// measureRate: manifests a second, by digest and by tag, against a handler that knows one answer. All servers are there at
// once and take short turns, so that whatever else the machine does meets them alike.
func measureRate(ctx context.Context, l *lab, x images, into *results) error {
	names := []string{bare, distribution, nginxCache, nginxStatic, mirror}
	up, err := l.upstream(ctx, kind{})
	if err != nil {
		return err
	}
	defer up.stop()
	subjects := make(map[string]*subject)
	for _, name := range names {
		var s *subject
		if name == bare {
			s, err = l.handler(ctx, x.small)
		} else {
			s, err = l.start(ctx, name, up, false)
		}
		if err != nil {
			return err
		}
		defer s.stop()
		subjects[name] = s
	}
	refs := map[string]string{"rate.digest": x.small.manifest.Digest.String(), "rate.tag": tag}
	turns := make(map[string][]float64)
	for turn := range loadTurns + 1 {
		for _, key := range []string{"rate.digest", "rate.tag"} {
			for _, name := range names {
				path := "/v2/" + x.small.repo + "/manifests/" + refs[key]
				n, err := rate(ctx, loadConns, loadTime, subjects[name].host(), path)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				if turn > 0 { // in the first one it gets warm
					turns[key+name] = append(turns[key+name], n)
				}
			}
		}
	}
	for _, key := range []string{"rate.digest", "rate.tag"} {
		for _, name := range names {
			into.add(key, name, median(turns[key+name]))
		}
	}
	return nil
}

// measureThousand: a thousand clients, each with connections of its own, pull one image that is not cached, and check all
// digests. nginx knows no tokens, so its upstream asks for none.
func measureThousand(ctx context.Context, l *lab, x images, into *results) error {
	for _, c := range []struct {
		name string
		tls  bool
	}{{distribution, false}, {nginxCache, false}, {mirror, false}, {mirror, true}} {
		key := "thousand"
		if c.tls {
			key = "thousand.tls"
		}
		err := with(ctx, l, c.name, kind{rate: slowRate, auth: c.name != nginxCache, tls: c.tls}, func(up, s *subject) error {
			if err := reset(ctx, up); err != nil { // distribution asks while it starts
				return err
			}
			h, err := pullHerd(ctx, thousand, s.base, s.ca, true, x.small)
			if err != nil {
				return err
			}
			st, err := stats(ctx, up)
			if err != nil {
				return err
			}
			rss, err := peakRSS(s.proc.Pid())
			if err != nil {
				return err
			}
			into.add(key+".wall", c.name, h.wall.Seconds())
			into.add(key+".bytes", c.name, float64(st.Bytes)/float64(x.small.bytes()))
			into.add(key+".manifests", c.name, float64(st.Requests["GET manifest"]))
			into.add(key+".blobs", c.name, float64(st.Requests["GET blob"]))
			into.add(key+".tokens", c.name, float64(st.Tokens))
			into.add(key+".rss", c.name, float64(rss)/(1<<20))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// measureSlow: one client pulls an image that is not cached from an upstream that gives each connection 20 MB/s.
func measureSlow(ctx context.Context, l *lab, x images, into *results) error {
	for _, name := range []string{direct, distribution, nginxCache, mirror} {
		err := with(ctx, l, name, kind{rate: lowRate}, func(up, s *subject) error {
			h, err := pullHerd(ctx, 1, s.base, s.ca, true, x.huge)
			if err != nil {
				return err
			}
			st, err := stats(ctx, up)
			if err != nil {
				return err
			}
			into.add("slow.wall", name, h.wall.Seconds())
			into.add("slow.bytes", name, float64(st.Bytes)/float64(x.huge.bytes()))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// measureKnown: one client pulls 100 MB twice, of different images, and then 512 MiB, from an upstream that gives each
// connection 20 MB/s. So the first image is the first that the server has from that upstream.
func measureKnown(ctx context.Context, l *lab, x images, into *results) error {
	pulls := []struct {
		key   string
		image *image
	}{{"known.first", x.big}, {"known.second", x.next}, {"known.huge", x.huge}}
	for _, name := range []string{direct, mirror} {
		err := with(ctx, l, name, kind{rate: lowRate}, func(up, s *subject) error {
			var size int64
			for _, p := range pulls {
				if name == direct && p.image == x.huge {
					continue // measureSlow has it
				}
				h, err := pullHerd(ctx, 1, s.base, s.ca, true, p.image)
				if err != nil {
					return err
				}
				into.add(p.key, name, h.wall.Seconds())
				size += p.image.bytes()
			}
			st, err := stats(ctx, up)
			into.add("known.bytes", name, float64(st.Bytes)/float64(size))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// measureCut: one client pulls an image that is not cached from an upstream that closes the connection
// after every 20 MB. A server that does not survive that has no figures but "fails".
func measureCut(ctx context.Context, l *lab, x images, into *results) error {
	for _, name := range []string{distribution, nginxCache, mirror} {
		err := with(ctx, l, name, kind{cut: cutAfter}, func(up, s *subject) error {
			h, err := pullHerd(ctx, 1, s.base, s.ca, true, x.big)
			if err != nil {
				if name == mirror {
					return err
				}
				into.log("  %-18s %-14s fails: %v", "cut", name, err)
				into.fail("cut.wall", name)
				into.fail("cut.bytes", name)
				return nil
			}
			st, err := stats(ctx, up)
			if err != nil {
				return err
			}
			into.add("cut.wall", name, h.wall.Seconds())
			into.add("cut.bytes", name, float64(st.Bytes)/float64(x.big.bytes()))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
