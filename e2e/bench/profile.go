package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	pprof "github.com/google/pprof/profile"
	"golang.org/x/sync/errgroup"
)

// profileTime is how long each kind of load is recorded.
const profileTime = 10 * time.Second

// profile records where the mirror spends its time under the loads that the gates are about, and writes one profile of
// all. The compiler takes it as cmd/mirror/default.pgo.
func profile(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("bench profile", flag.ExitOnError)
	binary := flags.String("mirror", "../bin/mirror", "the binary")
	out := flags.String("o", "../cmd/mirror/default.pgo", "where the profile goes")
	if err := flags.Parse(args); err != nil {
		return err
	}
	l, x, err := newLab(*binary)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	manifests := "/v2/" + x.small.repo + "/manifests/"
	var recorded []*pprof.Profile
	for _, load := range []struct {
		name string
		tls  bool
		run  func(ctx context.Context, s *subject) error
	}{
		{"by digest", false, func(ctx context.Context, s *subject) error {
			_, err := rate(ctx, loadConns, profileTime, s.host(), manifests+x.small.manifest.Digest.String())
			return err
		}},
		{"by tag", false, func(ctx context.Context, s *subject) error {
			_, err := rate(ctx, loadConns, profileTime, s.host(), manifests+tag)
			return err
		}},
		{"blobs under TLS", true, func(ctx context.Context, s *subject) error {
			_, err := download(ctx, warmConns, warmBytes, s.base, s.ca, x.big)
			return err
		}},
		{"cold", false, func(ctx context.Context, s *subject) error {
			_, err := pullHerd(ctx, herdSize, s.base, s.ca, false, x.huge)
			return err
		}},
	} {
		fmt.Println("profile:", load.name)
		err := with(ctx, l, mirror, kind{tls: load.tls}, func(_, s *subject) error {
			for _, im := range []*image{x.small, x.big} {
				if _, err := pullHerd(ctx, 1, s.base, s.ca, false, im); err != nil {
					return err
				}
			}
			group, ctx := errgroup.WithContext(ctx)
			group.Go(func() error { return load.run(ctx, s) })
			group.Go(func() error {
				p, err := record(ctx, s.admin)
				recorded = append(recorded, p)
				return err
			})
			return group.Wait()
		})
		if err != nil {
			return err
		}
	}
	merged, err := pprof.Merge(recorded)
	if err != nil {
		return fmt.Errorf("merge the profiles: %w", err)
	}
	for _, m := range merged.Mapping {
		m.File = filepath.Base(m.File) // the path of the binary does not matter
	}
	var b bytes.Buffer
	if err := merged.Write(&b); err != nil {
		return fmt.Errorf("write the profile: %w", err)
	}
	return os.WriteFile(*out, b.Bytes(), 0o644)
}

// record takes the CPU profile of a few seconds.
func record(ctx context.Context, admin string) (*pprof.Profile, error) {
	url := fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", admin, int(profileTime.Seconds())-1)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("record a profile: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("record a profile: %s", res.Status)
	}
	p, err := pprof.Parse(res.Body)
	if err != nil {
		return nil, fmt.Errorf("record a profile: %w", err)
	}
	return p, nil
}
