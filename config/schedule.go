package config

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/registrymirror/mirror/internal/cron"
	"github.com/registrymirror/mirror/internal/strictyaml"
	"github.com/registrymirror/mirror/oci"
)

// Times are the times of a schedule that has been checked, and their zone. Nil: it is for moves of tags.
func (s Schedule) Times() (*cron.Spec, *time.Location) {
	zone, err := time.LoadLocation(s.TimeZone)
	if err != nil || s.OnTagMove {
		return nil, time.UTC
	}
	spec, err := cron.Parse(s.Cron)
	if err != nil {
		return nil, zone
	}
	return &spec, zone
}

// checkSchedules checks the schedules, and gives a name to each that has none.
func (c *Config) checkSchedules(found *mistakes) {
	upstreams := c.wholeUpstreams()
	var names []string
	for i := range c.Warm.Schedules {
		s, at := &c.Warm.Schedules[i], strictyaml.Index("warm.schedules", i)
		s.Name = cmp.Or(s.Name, fmt.Sprintf("schedule-%d", i+1))
		switch {
		case !namePattern.MatchString(s.Name):
			found.add(at+".name", quoted(s.Name)+" is not a name", "write letters, digits, -, . or _, at most 63")
		case slices.Contains(names, s.Name):
			found.add(at+".name", "another schedule is called "+quoted(s.Name), "give each a name of its own", at)
		}
		names = append(names, s.Name)
		s.checkTimes(found, at)
		s.checkImages(found, at, upstreams)
		checkPlatforms(found, at+".platforms", s.Platforms)
		for j, text := range s.With {
			if text != "signatures" && text != "referrers" {
				found.add(strictyaml.Index(at+".with", j), quoted(text)+" is not pulled beside an image", "write signatures or referrers")
			}
		}
	}
}

func (s *Schedule) checkTimes(found *mistakes, at string) {
	switch {
	case s.Cron == "" && !s.OnTagMove:
		found.add(at, "has no time", `add cron, as in cron: "0 5 * * *", or onTagMove: true`)
	case s.Cron != "" && s.OnTagMove:
		found.add(at+".onTagMove", "the schedule has cron as well", "write two schedules, or remove one of these")
	case s.OnTagMove && s.TimeZone != "":
		found.add(at+".timeZone", "has no effect without cron", "remove it")
	}
	if _, err := cron.Parse(s.Cron); s.Cron != "" && err != nil {
		hint := `as in "0 5 * * *": minute, hour, day of month, month, day of week`
		if s.TimeZone == "" {
			hint += "; a zone goes into timeZone"
		}
		found.add(at+".cron", quoted(s.Cron)+" has no times: "+err.Error(), hint)
	}
	if _, err := time.LoadLocation(s.TimeZone); err != nil {
		found.add(at+".timeZone", quoted(s.TimeZone)+" is not a time zone", "as in Europe/Berlin or America/New_York")
	}
}

// checkImages checks that each image is of an upstream.
func (s *Schedule) checkImages(found *mistakes, at string, upstreams Upstreams) {
	if len(s.Images) == 0 {
		found.add(at+".images", "a schedule names no image", "add images, as in [docker.io/library/nginx:1.27]", at)
	}
	for i, text := range s.Images {
		at := strictyaml.Index(at+".images", i)
		ref, err := oci.ParseRef(text)
		switch {
		case err != nil:
			found.add(at, quoted(text)+" is not an image", "as in docker.io/library/nginx:1.27; no glob")
		case upstreams.Named(ref.Host) == nil && !slices.ContainsFunc(upstreams, func(u Upstream) bool { return u.IsPattern() && u.Fits(ref.Host) }):
			found.add(at, quoted(ref.Host)+" is not among the upstreams", "add it under upstreams, or remove the image")
		case s.OnTagMove && ref.Digest != "":
			found.add(at, "an image by digest never moves", "name it by its tag, or in a schedule with cron")
		}
	}
}
