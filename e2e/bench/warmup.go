package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/registry"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

const (
	crane = "crane" // which copies the list of images into a registry, one after the other

	warmImages = 8
	warmLayers = 3
	warmLayer  = 25 * mb
	warmRounds = 5 // of the three pulls that are compared, in each run
)

// warmList are the images of a warm-up.
func (l *lab) warmList() (_ []*image, err error) {
	for len(l.list) < warmImages {
		layers := make([]layer, warmLayers)
		for i := range layers {
			layers[i].size = warmLayer
		}
		x, err := newImage(l.files, fmt.Sprint("bench/warm", len(l.list)), layers...)
		if err != nil {
			return nil, err
		}
		l.list = append(l.list, x)
	}
	return l.list, nil
}

// measureWarm: a cold pull of 100 MB, alone, alone again for the spread without a change, and beside a running warm-up, in turns; and
// how long the warm-up of a list of images takes, against crane, which copies the same list. The upstream gives each connection 50 MB/s.
func measureWarm(ctx context.Context, l *lab, x images, into *results) error {
	list, err := l.warmList()
	if err != nil {
		return err
	}
	for range warmRounds {
		for _, key := range []string{"warm.alone", "warm.again", "warm.beside"} {
			err := with(ctx, l, mirror, kind{rate: slowRate}, func(_, s *subject) error {
				id := ""
				if key == "warm.beside" {
					if id, err = s.warm(ctx, list); err != nil {
						return err
					}
					if err := s.warmed(ctx, id, func(j job) bool { return j.BytesDone > 0 }); err != nil {
						return err
					}
				}
				h, err := pullHerd(ctx, 1, s.base, s.ca, true, x.big)
				if err != nil {
					return err
				}
				into.add(key, mirror, h.wall.Seconds())
				if id == "" {
					return nil
				}
				if j, err := s.job(ctx, id); err != nil || j.State != "running" {
					return fmt.Errorf("the warm-up is %q at the end of the pull, and not running: %w", j.State, err)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	err = with(ctx, l, mirror, kind{rate: slowRate}, func(_, s *subject) error {
		start := time.Now()
		id, err := s.warm(ctx, list)
		if err == nil {
			err = s.warmed(ctx, id, func(j job) bool { return j.State == "done" })
		}
		into.add("warm.list", mirror, time.Since(start).Seconds())
		return err
	})
	if err != nil {
		return err
	}
	return copyList(ctx, l, list, into)
}

// copyList has crane copy the images.
func copyList(ctx context.Context, l *lab, list []*image, into *results) error {
	up, err := l.upstream(ctx, kind{rate: slowRate})
	if err != nil {
		return err
	}
	defer up.stop()
	dir, err := l.folder()
	if err != nil {
		return err
	}
	to, err := registry.Launch(ctx, registry.Options{Dir: dir, Program: filepath.Join(tool.Bin(), "registry")})
	if err != nil {
		return err
	}
	s := &subject{proc: to.Process, dir: dir}
	defer s.stop()
	start := time.Now()
	for _, x := range list {
		name := "/" + x.repo + ":" + tag
		cmd := exec.CommandContext(ctx, filepath.Join(tool.Bin(), "crane"), "copy", "--insecure", up.host()+name, to.Host+name)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("crane copy %s: %w\n%s", name, err, out)
		}
	}
	into.add("warm.list", crane, time.Since(start).Seconds())
	return nil
}

// job is what the mirror says of a warm-up.
type job struct {
	ID, State string
	BytesDone int64
}

// warm begins a warm-up.
func (s *subject) warm(ctx context.Context, list []*image) (id string, err error) {
	var names []string
	for _, x := range list {
		names = append(names, "docker.io/"+x.repo+":"+tag)
	}
	body, err := json.Marshal(map[string]any{"images": names, "platforms": []string{"linux/amd64"}})
	if err != nil {
		return "", err
	}
	j, err := s.ask(ctx, http.MethodPost, "", bytes.NewReader(body))
	return j.ID, err
}

func (s *subject) job(ctx context.Context, id string) (job, error) {
	return s.ask(ctx, http.MethodGet, "/"+id, http.NoBody)
}

// warmed waits until a warm-up has come so far. One that has failed is an error.
func (s *subject) warmed(ctx context.Context, id string, far func(job) bool) error {
	return wait.Until(ctx, time.Minute, func() error {
		j, err := s.job(ctx, id)
		if err == nil && !far(j) {
			err = fmt.Errorf("the warm-up is %s, with %d bytes", j.State, j.BytesDone)
		}
		return err
	})
}

func (s *subject) ask(ctx context.Context, method, path string, body io.Reader) (j job, err error) {
	req, err := http.NewRequestWithContext(ctx, method, s.admin+"/api/v1/warm"+path, body)
	if err != nil {
		return j, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return j, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode >= 300 {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return j, fmt.Errorf("%s warm%s: %s %s", method, path, resp.Status, b)
	}
	return j, json.NewDecoder(resp.Body).Decode(&j)
}
