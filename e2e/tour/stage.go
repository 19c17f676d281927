package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/trouble"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// stage is where the acts play.
type stage struct {
	*mirrord.Mirror
	page          *page
	with, without client
	client        string
	runtime       bool // it is one that runs what it pulls
	names         *strings.Replacer
}

// namesOf puts names in the place of the addresses of this run, so that two runs print the same.
func namesOf(places []*trouble.Place, m *mirrord.Mirror) *strings.Replacer {
	pairs := map[string]string{m.Host: "127.0.0.1:5000"}
	for _, p := range places {
		if p.Registry == nil {
			continue
		}
		for at, name := range map[string]string{
			p.Registry.Host(): p.Host, p.Registry.CDNHost(): "blobs." + p.Host, p.Registry.TokenHost(): p.Host,
		} {
			_, port, _ := strings.Cut(at, ":")
			pairs[at], pairs[p.Host+":"+port], pairs[" ("+at+")"] = name, p.Host, ""
		}
	}
	var list []string
	for at, name := range pairs {
		list = append(list, at+"\x00"+name)
	}
	sort.Strings(list)
	var flat []string
	for _, l := range list {
		at, name, _ := strings.Cut(l, "\x00")
		flat = append(flat, at, name)
	}
	return strings.NewReplacer(flat...)
}

var (
	digest  = regexp.MustCompile(`(sha256:[0-9a-f]{12})[0-9a-f]{52}`)
	grpc    = regexp.MustCompile(`^rpc error: code = \w+ desc = `)
	local   = regexp.MustCompile(`127\.0\.0\.1:\d{4,5}->`)
	escaped = strings.NewReplacer("\n", " ", "\t", " ", `\"`, `"`)
)

// clean is a text as it is shown: names for addresses, short digests, and without what gRPC puts before it, as the
// kubelet does.
func (s *stage) clean(text string) string {
	text = grpc.ReplaceAllString(escaped.Replace(text), "")
	text = digest.ReplaceAllString(text, "$1")
	return s.names.Replace(local.ReplaceAllString(text, ""))
}

// pull shows how a pull ends.
func (s *stage) pull(ctx context.Context, how string, c client, ref string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	sum, err := c.pull(ctx, ref)
	if err != nil {
		s.page.part(how, red, s.clean(err.Error()))
	} else {
		s.page.part(how, green, "pulled "+ref+", "+s.clean(sum))
	}
	return sum, err
}

func (s *stage) both(ctx context.Context, ref string) error {
	_, _ = s.pull(ctx, "without", s.without, ref) // what it prints is what is shown
	_, err := s.pull(ctx, "with", s.with, ref)
	if err == nil {
		return fmt.Errorf("%s was pulled", ref)
	}
	return nil
}

type failure struct {
	ID, Reason, Class, Summary, Remedy, Outcome string
	Evidence                                    []string
	Count                                       int
}

func (s *stage) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Admin+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s %s (%w)", path, resp.Status, b, err)
	}
	return json.Unmarshal(b, into)
}

// recorded shows what the mirror has recorded of an image.
func (s *stage) recorded(ctx context.Context, ref, reason string) error {
	var f failure
	err := wait.Until(ctx, 30*time.Second, func() error {
		var list struct{ Failures []failure }
		if err := s.get(ctx, "/api/v1/failures?declined=true&image="+url.QueryEscape(ref), &list); err != nil {
			return err
		}
		for _, f = range list.Failures {
			if f.Reason == reason {
				return nil
			}
		}
		return fmt.Errorf("%s is not recorded: %v", reason, list.Failures)
	})
	if err != nil {
		return err
	}
	s.page.part("recorded", blue, fmt.Sprintf("%s, class %s, %s, id %s", f.Reason, f.Class, f.Outcome, f.ID))
	s.page.part("", "0", s.clean(f.Summary))
	s.page.part("", "0", "-> "+s.clean(f.Remedy))
	return nil
}

// pulls shows how the mirror saw the pulls of an image.
func (s *stage) pulls(ctx context.Context, ref string) error {
	var list struct {
		Pulls []struct {
			Image, Digest, Outcome string
			Bytes, FromCache       int64
		}
	}
	if err := s.get(ctx, "/api/v1/pulls?active=true", &list); err != nil {
		return err
	}
	for _, p := range list.Pulls {
		if p.Image == ref {
			s.page.part("recorded", blue, fmt.Sprintf("%s, %d bytes of content, %d of them from the cache", p.Outcome,
				p.Bytes, p.FromCache))
			return nil
		}
	}
	return fmt.Errorf("no pull of %s: %v", ref, list.Pulls)
}

// summary is the question that the list of reasons begins with.
func summary(ctx context.Context, s *stage) string {
	var sum struct{ Classes map[string]int }
	if err := s.get(ctx, "/api/v1/failures/summary?declined=true", &sum); err != nil {
		return err.Error()
	}
	var parts []string
	for class, n := range sum.Classes {
		parts = append(parts, fmt.Sprintf("%d %s", n, class))
	}
	sort.Strings(parts)
	return "mirror failures --by class --declined says: " + strings.Join(parts, ", ")
}
