package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/diagnose/doctor"
)

// selfPatience is how long the mirror may take to check itself: it asks eight upstreams at once, each for 20 s at most.
const selfPatience = 3 * time.Minute

// runDoctor checks the mirror: its files from here, and all else in the running mirror.
func runDoctor(cmd *cobra.Command, flags *adminFlags) error {
	report := &doctor.MirrorReport{At: "here", Version: versionText(), Began: time.Now()}
	var conf *config.Config
	if flags.config != "" {
		conf, report.Checks = checkConfigHere(flags.config)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), selfPatience)
	defer cancel()
	body, err := flags.get(ctx, "doctor", nil)
	var exit *exitError
	switch {
	case err == nil:
		var there doctor.MirrorReport
		if json.Unmarshal(body, &there) != nil || len(there.Checks) == 0 {
			return flags.isNot("the checks of a mirror")
		}
		there.Checks = append(report.Checks, there.Checks...)
		report = &there
	case errors.As(err, &exit) && exit.code == exitUsage:
		return err
	default:
		report.Checks = append(report.Checks, notSeen(err, conf)...)
	}
	if report.Judge(); report.At == "here" {
		report.Finish()
	}
	out := cmd.OutOrStdout()
	err = flags.output.document(out, report, func() string { return mirrorText(report, flags.output.wide(), coloured(out)) })
	if err != nil {
		return err
	}
	switch {
	case report.OK:
		return nil
	case exit != nil && exit.code == exitUnreachable:
		return &exitError{exitUnreachable, nil}
	}
	return &exitError{exitFailed, nil}
}

// checkConfigHere checks the file of --config, and the files that it names. Nil: it can't be used.
func checkConfigHere(file string) (*config.Config, []doctor.Check) {
	c := doctor.Check{Area: doctor.AreaConfig, Name: file, State: doctor.OK, Detail: "is valid, with the files that it names"}
	conf, err := config.Load(file, os.Environ())
	if err != nil {
		c.State, c.Remedy = doctor.Broken, "correct it; mirror config check shows each mistake"
		c.Detail = err.Error()
		if invalid, ok := errors.AsType[*config.Invalid](err); ok {
			c.Detail = invalid.Problems[0].String()
			if n := len(invalid.Problems); n > 1 {
				c.Detail += fmt.Sprintf("; and %d more", n-1)
			}
		}
		return nil, []doctor.Check{c}
	}
	wrong, warnings := checkFiles(conf.Named())
	for _, m := range wrong {
		c.State, c.Detail, c.Remedy = doctor.Broken, m.Path+": "+m.Message, m.Hint
	}
	list := []doctor.Check{c}
	for _, text := range append(diskWarnings(conf), warnings...) {
		detail, remedy, _ := strings.Cut(text, "; ")
		list = append(list, doctor.Check{Area: doctor.AreaConfig, Name: file, State: doctor.Warning, Detail: detail, Remedy: remedy})
	}
	return conf, list
}

// notSeen are the checks of a mirror that does not answer: what was seen from here, and what was not.
func notSeen(why error, conf *config.Config) []doctor.Check {
	list := []doctor.Check{{
		Area: doctor.AreaAdmin, State: doctor.Broken, Detail: why.Error(),
		Remedy: "start the mirror, or say where it is: --admin URL, with --admin-token-file; its log says why it ended",
	}}
	if conf != nil {
		c := doctor.Check{Area: doctor.AreaData, Name: conf.Cache.Dir, State: doctor.OK}
		if space, err := disk.SpaceAt(conf.Cache.Dir); err != nil {
			c.State, c.Detail = doctor.Warning, "can't be looked at from here: "+err.Error()
			c.Remedy = "run mirror doctor where the mirror runs"
		} else {
			c.Detail = fmt.Sprintf("the disk has %s of %s free", amount(space.Free), amount(space.Total))
		}
		list = append(list, c)
	}
	for _, area := range []string{
		doctor.AreaListener, doctor.AreaState, doctor.AreaFiles, doctor.AreaProxy, doctor.AreaWebhooks, doctor.AreaKubernetes, doctor.AreaHardening,
		doctor.AreaUpstream,
	} {
		list = append(list, doctor.Check{Area: area, State: doctor.NotTried, Detail: "only the running mirror can look at it"})
	}
	return list
}

// mirrorText is a report for people: a line for each check, with the steps where it is wide, then each problem with its remedy.
func mirrorText(r *doctor.MirrorReport, wide, colour bool) string {
	var b strings.Builder
	var t stateTable
	t.add("", "CHECK", "STATE", "OF", "RESULT")
	for _, c := range r.Checks {
		t.add(c.State, c.Area, stateWords[c.State].word, c.Name, c.Detail)
		for _, s := range c.Steps {
			if wide {
				t.add(s.State, "  "+s.Stage, stateWords[s.State].word, s.Host, s.Detail)
			}
		}
	}
	b.WriteString(t.text(colour))
	broken, warnings := 0, 0
	for _, c := range r.Checks {
		switch c.State {
		case doctor.Broken:
			broken++
		case doctor.Warning:
			warnings++
		default:
			continue
		}
		fmt.Fprintf(&b, "\n%s  %s\n  %s\n  > %s\n", stateWords[c.State].word, strings.TrimSpace(c.Area+" "+c.Name), c.Detail, c.Remedy)
	}
	result := "Nothing is broken"
	if broken > 0 {
		result = plural(broken, "check is broken", "checks are broken")
	}
	fmt.Fprintf(&b, "\n%s, %s; checked from %s in %s.\n", result, plural(warnings, "warning", "warnings"), choose(r.At == "mirror", "the mirror", "here"), r.Took)
	return b.String()
}
