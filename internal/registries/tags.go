package registries

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/oci"
)

// policies are the policies of an upstream's tags.
func policies(t config.Tags) (catalog.Policies, error) {
	p := catalog.Policies{Base: policy(t)}
	for _, pattern := range t.Patterns {
		p.Patterns = append(p.Patterns, catalog.PatternPolicy{Match: pattern.Match, Policy: policy(t.For(pattern))})
	}
	for _, text := range t.Immutable {
		r, err := regexp.Compile(text)
		if err != nil {
			return p, fmt.Errorf("tags.immutable: %w", err)
		}
		p.Immutable = append(p.Immutable, r)
	}
	return p, nil
}

func policy(t config.Tags) catalog.Policy {
	return catalog.Policy{
		MaxAge: t.MaxAge, Wait: t.Wait, StaleIfError: t.StaleIfError, MinAge: t.MinAge, HoldUnknown: t.MinAgeUnknown == "hold",
		ServeStaleFirst: t.ServeStaleFirst, DropDeleted: t.Deleted == "drop",
	}
}

// Pins are the pins of a configuration.
func Pins(c *config.Config) (list []catalog.Pin) {
	for _, u := range c.Upstreams {
		for _, name := range slices.Sorted(maps.Keys(u.Pins)) {
			repository, tag, _ := strings.Cut(name, ":")
			list = append(list, catalog.Pin{
				Ref:    oci.Ref{Repo: oci.Repo{Host: u.Name, Name: repository}, Tag: tag},
				Digest: oci.Digest(u.Pins[name]),
			})
		}
	}
	return list
}
