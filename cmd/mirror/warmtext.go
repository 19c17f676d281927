package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/warm"
	"github.com/registrymirror/mirror/warm/images"
)

// lines prints each element as JSON on a line of its own.
func lines[T any](w io.Writer, list []T) error {
	for _, x := range list {
		b, err := json.Marshal(x)
		if err != nil {
			return err
		}
		if err := write(w, string(b)+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// printAnswer prints an answer with a list: body for programs, its list as lines, or a text for people.
func printAnswer[T any](w io.Writer, o output, body []byte, list []T, text string) error {
	switch {
	case o == ndjson:
		return lines(w, list)
	case o.encoded():
		return o.print(w, body)
	}
	return write(w, text)
}

// planText is a plan as a table, with its totals and what it costs below.
func planText(p admin.WarmPlan, wide bool, now time.Time) string {
	var t table
	t.row("IMAGE", "DIGEST", "PLATFORMS", "SIZE", "CACHED", "SHARED", "REQUESTS")
	unknown := 0
	for _, x := range p.Images {
		size, cached, shared := amount(x.Bytes), amount(x.BytesCached), amount(x.BytesShared)
		switch {
		case x.Failure != nil:
			size, cached, shared = "-", "-", "-"
		case x.WaitingFor != nil:
			size, cached, shared = "unknown", "unknown", "unknown"
			unknown++
		}
		t.row(x.Image, orDash(shortDigest(x.Digest, wide)), orDash(strings.Join(x.Platforms, " ")), size, cached, shared, strconv.Itoa(x.Requests))
		addFailure(&t, x.Failure)
		if x.WaitingFor != nil {
			t.row("  its manifests can't be had now: " + waitText(x.WaitingFor))
		}
	}
	var b strings.Builder
	b.WriteString(t.String() + "\n")
	fmt.Fprintf(&b, "%s%s in all, of which %s are cached: %s%s would be fetched, with %s for manifests.\n", choose(unknown > 0, "At least ", ""),
		amount(p.Bytes), amount(p.BytesCached), choose(unknown > 0, "at least ", ""), amount(p.BytesMissing), plural(p.Requests, "request", "requests"))
	if !p.Fits {
		b.WriteString("It does not fit: " + sentence(p.Text) + "\n")
	}
	for _, l := range p.Limits {
		b.WriteString(limitText(l, now) + "\n")
	}
	return b.String()
}

// limitText says what a job costs of a registry's limit, and when there is enough.
func limitText(l admin.WarmLimit, now time.Time) string {
	text := fmt.Sprintf("%s: the job needs %s of its limit, and warm-up may make %d now", l.Upstream, plural(l.Requests, "request", "requests"), l.Remaining)
	switch {
	case int64(l.Requests) <= l.Remaining:
		return text + ": enough."
	case l.EnoughAt.IsZero():
		return text + "; it waits for more."
	}
	return text + fmt.Sprintf("; it waits for more until %s (%s).", l.EnoughAt.Format(time.RFC3339), until(l.EnoughAt, now))
}

// failureText is why an image is not there, and what to do, in two lines.
func failureText(f *admin.WarmFailure) string {
	return "  " + f.Summary + "\n  > " + f.Remedy + choose(f.ID != "", " ["+f.ID+"]", "")
}

// addFailure adds why the image of the last row is not there, below that row. Nil: the image is there.
func addFailure(t *table, f *admin.WarmFailure) {
	if f != nil {
		t.row(failureText(f))
	}
}

func verifiedText(v admin.WarmVerified, wide bool) string {
	var t table
	t.row("IMAGE", "HERE", "DIGEST", "PLATFORMS", "SIZE")
	for _, x := range v.Images {
		t.row(x.Image, choose(x.Complete, "all", "not all"), orDash(shortDigest(x.Digest, wide)), orDash(strings.Join(x.Platforms, " ")), bytesText(x.BytesDone, x.BytesTotal))
		addFailure(&t, x.Failure)
	}
	return t.String()
}

// bytesText is how much of something is there.
func bytesText(done, total int64) string {
	switch {
	case total == 0:
		return "-"
	case done >= total:
		return amount(total)
	}
	return amount(done) + " of " + amount(total)
}

func jobsText(l admin.WarmJobList, now time.Time) string {
	if len(l.Jobs) == 0 {
		return "There are no jobs.\n"
	}
	var t table
	t.row("JOB", "STATE", "IMAGES", "FAILED", "SIZE", "CREATED", "ENDED", "FOR")
	for _, j := range l.Jobs {
		all := int64(0)
		for _, n := range j.Counts {
			all += n
		}
		t.row(j.ID, stateText(j), fmt.Sprintf("%d of %d", j.Counts[string(warm.Done)], all), strconv.FormatInt(j.Counts[string(warm.Failed)], 10),
			bytesText(j.BytesDone, j.BytesTotal), since(j.CreatedAt, now), since(j.FinishedAt, now), choose(j.Name == "", "a request", j.Name))
	}
	return t.String() + moreText(l.Continue)
}

// stateText is the state of a job, and the code of what it waits for.
func stateText(j admin.WarmJob) string {
	if j.WaitingFor == nil {
		return string(j.State)
	}
	return string(j.State) + " (waits: " + j.WaitingFor.Code + ")"
}

func jobText(j admin.WarmJob, wide bool, now time.Time) string {
	var t table
	t.field("job", "%s", j.ID)
	t.field("state", "%s", j.State)
	if w := j.WaitingFor; w != nil {
		t.field("waits", "%s", waitText(w))
	}
	if j.Name != "" {
		t.field("for", "%s", j.Name)
	}
	t.field("size", "%s, %s were cached before", bytesText(j.BytesDone, j.BytesTotal), amount(j.BytesCached))
	t.field("created", "%s, %s", j.CreatedAt.Format(time.RFC3339), since(j.CreatedAt, now))
	if !j.FinishedAt.IsZero() {
		t.field("ended", "%s, %s", j.FinishedAt.Format(time.RFC3339), since(j.FinishedAt, now))
	}
	var images table
	images.row("IMAGE", "STATE", "DIGEST", "PLATFORMS", "SIZE", "KEPT UNTIL")
	for _, x := range j.Images {
		images.row(x.Image, string(x.State), orDash(shortDigest(x.Digest, wide)), orDash(strings.Join(x.Platforms, " ")), bytesText(x.BytesDone, x.BytesTotal),
			choose(x.KeptUntil.IsZero(), "-", x.KeptUntil.Format(time.RFC3339)))
		addFailure(&images, x.Failure)
	}
	return t.String() + "\n" + images.String()
}

// waitText is what a job waits for, in words.
func waitText(w *admin.WarmWaiting) string {
	return strings.TrimSuffix(w.Text, ".") + choose(w.Until.IsZero(), "", ", until "+w.Until.Format(time.RFC3339))
}

// imageText is the line for an image that has ended. width is that of the longest name.
func imageText(x admin.WarmImage, width int) string {
	line := fmt.Sprintf("%-9s  %-*s  ", x.State, width, x.Image)
	switch {
	case x.Failure != nil:
		return line + string(x.Failure.Reason) + "\n"
	case x.State == warm.Cancelled:
		return strings.TrimRight(line, " ") + "\n"
	case x.BytesCached >= x.BytesTotal:
		return line + amount(x.BytesTotal) + ", cached before\n"
	case x.BytesCached*100 >= x.BytesTotal: // less is not worth the words
		return line + amount(x.BytesTotal) + ", " + amount(x.BytesCached) + " of it cached before\n"
	}
	return line + amount(x.BytesTotal) + "\n"
}

// endText is what is said when a job has ended: first why images failed and where they were found, since the end of a log is
// what people read.
func endText(j admin.WarmJob, places map[string]images.Place) string {
	var b strings.Builder
	var kept time.Time
	for _, x := range j.Images {
		if x.KeptUntil.After(kept) {
			kept = x.KeptUntil
		}
		if x.Failure == nil {
			continue
		}
		b.WriteString("\n" + x.Image + "\n" + failureText(x.Failure) + "\n")
		if p, ok := places[x.Image]; ok {
			b.WriteString("  it stands in " + p.String() + "\n")
		}
	}
	if b.Len() > 0 {
		b.WriteString("\n")
	}
	done := int(j.Counts[string(warm.Done)])
	fmt.Fprintf(&b, "%s in the cache%s%s.\n",
		choose(done == len(j.Images), choose(done == 1, "The image is", fmt.Sprintf("All %d images are", done)), fmt.Sprintf("%d of %d images are", done, len(j.Images))),
		choose(done > 0, ": "+amount(j.BytesDone)+", "+amount(j.BytesDone-min(j.BytesDone, j.BytesCached))+" of it fetched now", ""),
		choose(kept.IsZero(), "", ", kept until "+kept.Format(time.RFC3339)))
	return b.String()
}
