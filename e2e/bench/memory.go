package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	pace "golang.org/x/time/rate"
)

const (
	giant      = 10 << 30 // bytes of the largest blob
	giantWhole = 3        // clients that read all of it, one of them checking its digest
	idleConns  = 10_000
	heapEvery  = 250 * time.Millisecond
)

// giantRates are the speeds, in bytes per second, of the clients that do not read the giant to its end.
var giantRates = []int{100_000, 1 * mb, 5 * mb, 20 * mb, 40 * mb}

// measureGiant: 50 clients of mixed speeds want 10 GiB that are not cached. Those that read at full speed check all of it;
// the others read for as long as those take.
func measureGiant(ctx context.Context, l *lab, _ images, into *results) error {
	x, err := l.giant()
	if err != nil {
		return err
	}
	for _, name := range []string{distribution, mirror} {
		err := with(ctx, l, name, kind{}, func(up, s *subject) error {
			watching, stop := context.WithCancel(ctx)
			defer stop()
			heap := watchHeap(watching, s.admin)
			wall, err := mixed(ctx, s, x)
			if err != nil {
				return err
			}
			stop()
			most, err := heap()
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
			if s.admin != "" {
				into.add("giant.heap", name, float64(most)/(1<<20))
			}
			into.add("giant.rss", name, float64(rss)/(1<<20))
			into.add("giant.wall", name, wall.Seconds())
			into.add("giant.bytes", name, float64(st.Bytes)/float64(x.bytes()))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// mixed returns how long those took that read all of it.
func mixed(ctx context.Context, s *subject, x *image) (time.Duration, error) {
	slow, hurry := context.WithCancel(ctx)
	defer hurry()
	var rest errgroup.Group
	for i := range herdSize - giantWhole {
		c := newClient(s.base, s.ca, false)
		limit := pace.NewLimiter(pace.Limit(giantRates[i%len(giantRates)]), 256<<10)
		rest.Go(func() error {
			defer c.close()
			err := c.get(slow, x.repo+"/blobs/"+x.largest().Digest.String(), throttled{slow, limit}, nil)
			if slow.Err() != nil {
				return nil
			}
			return err
		})
	}
	start := time.Now()
	group, whole := errgroup.WithContext(ctx)
	for i := range giantWhole {
		c := newClient(s.base, s.ca, i == 0)
		group.Go(func() error {
			defer c.close()
			return c.blob(whole, x, x.largest(), nil)
		})
	}
	err := group.Wait()
	took := time.Since(start)
	hurry()
	return took, errors.Join(err, rest.Wait())
}

// throttled takes bytes no faster than its limit.
type throttled struct {
	ctx   context.Context
	limit *pace.Limiter
}

// Write implements io.Writer.
func (t throttled) Write(p []byte) (int, error) {
	return len(p), t.limit.WaitN(t.ctx, len(p))
}

// watchHeap reads the mirror's own figure until ctx ends. The function that it returns then says what was the most, in
// bytes. Without an address there is nothing to read.
func watchHeap(ctx context.Context, admin string) func() (uint64, error) {
	var most uint64
	var group errgroup.Group
	if admin != "" {
		group.Go(func() error {
			tick := time.NewTicker(heapEvery)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return nil
				case <-tick.C:
				}
				n, err := metric(ctx, admin, "go_memstats_heap_inuse_bytes")
				if ctx.Err() != nil {
					return nil
				}
				if err != nil {
					return err
				}
				most = max(most, uint64(n))
			}
		})
	}
	return func() (uint64, error) { return most, group.Wait() }
}

// metric reads one that has no labels.
func metric(ctx context.Context, admin, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(v, 64)
		}
	}
	return 0, errors.Join(lines.Err(), fmt.Errorf("no metric %s", name))
}

// giant makes the image, once: a layer of zeros, which as a file takes no room.
func (l *lab) giant() (*image, error) {
	if l.sparse != nil {
		return l.sparse, nil
	}
	x, err := newImage(l.files, "bench/giant", layer{giant, true})
	if err == nil {
		l.sparse = x
	}
	return x, err
}

// measureIdle: ten thousand connections, each after one answer, stay open.
func measureIdle(ctx context.Context, l *lab, _ images, into *results) error {
	for _, name := range []string{distribution, nginxStatic, mirror} {
		err := with(ctx, l, name, kind{}, func(_, s *subject) error {
			conns := make([]net.Conn, idleConns)
			defer func() {
				for _, c := range conns {
					if c != nil {
						_ = c.Close()
					}
				}
			}()
			group, ctx := errgroup.WithContext(ctx)
			group.SetLimit(64)
			for i := range conns {
				group.Go(func() (err error) {
					if conns[i], err = (&net.Dialer{}).DialContext(ctx, "tcp", s.host()); err != nil {
						return err
					}
					if _, err := io.WriteString(conns[i], "GET /v2/ HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
						return err
					}
					res, err := http.ReadResponse(bufio.NewReader(conns[i]), nil)
					if err != nil {
						return err
					}
					return res.Body.Close()
				})
			}
			if err := group.Wait(); err != nil {
				return err
			}
			rss, err := peakRSS(s.proc.Pid())
			if err != nil {
				return err
			}
			into.add("idle.rss", name, float64(rss)/(1<<20))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
