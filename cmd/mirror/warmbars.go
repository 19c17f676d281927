package main

import (
	"io"
	"sync"
	"unicode/utf8"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/warm"
)

const (
	// maxBars is how many images have a bar at once; a terminal has few lines.
	maxBars = 12
	// maxName is how many columns the name of an image has in front of its bar.
	maxName = 40
	// bytesWidth is how many columns the bytes behind a bar have at least, so that the bar keeps its length while they change.
	bytesWidth = len("999.9 MiB of 999.9 MiB")
)

// bars is a view for a terminal: a bar for each image that is being fetched, and below them one for the job. Bars go to the
// standard error, so that the standard output has nothing but the lines. If both are a terminal, lines go above the bars.
type bars struct {
	progress *mpb.Progress
	out      io.Writer
	above    bool // lines go above the bars
	all      *mpb.Bar
	images   map[int]*mpb.Bar // by the index of the image

	mu    sync.Mutex // guards what follows, which bars are drawn with
	text  string     // below the bar of the job
	bytes map[int]string
	speed speed
}

func newBars(stderr, stdout io.Writer, options ...mpb.ContainerOption) *bars {
	b := &bars{out: stdout, above: isTerminal(stdout), images: make(map[int]*mpb.Bar), bytes: make(map[int]string)}
	b.progress = mpb.New(append([]mpb.ContainerOption{mpb.WithOutput(stderr)}, options...)...)
	b.all = b.bar("all images", -1, 1<<20, mpb.BarBtmExtender(mpb.BarFillerFunc(func(w io.Writer, s decor.Statistics) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		line := []rune(b.text)
		_, err := io.WriteString(w, string(line[:min(len(line), max(s.AvailableWidth-1, 0))])+"\n")
		return err
	})))
	return b
}

// bar adds a bar with a name in front of it, and the bytes of an image, or of the job (-1), behind it.
func (b *bars) bar(name string, image, priority int, options ...mpb.BarOption) *mpb.Bar {
	return b.progress.New(-1, mpb.BarStyle(), append(options, mpb.BarPriority(priority),
		mpb.PrependDecorators(decor.Name(shortName(name, maxName), decor.WCSyncSpaceR)),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.bytes[image]
		}, decor.WC{W: bytesWidth, C: decor.DSyncWidth})))...)
}

// shortName is the end of a name, which tells images apart, in at most so many columns.
func shortName(name string, columns int) string {
	const cut = "..."
	r := []rune(name)
	if utf8.RuneCountInString(name) <= columns {
		return name
	}
	if columns <= len(cut) {
		return string(r[:columns])
	}
	return cut + string(r[len(r)-columns+len(cut):])
}

func (b *bars) show(j admin.WarmJob) {
	b.mu.Lock()
	b.text = progressText(j, b.speed.now(j))
	b.bytes[-1] = bytesText(j.BytesDone, j.BytesTotal)
	for i, x := range j.Images {
		b.bytes[i] = bytesText(x.BytesDone, x.BytesTotal)
	}
	b.mu.Unlock()
	for i, x := range j.Images {
		bar := b.images[i]
		switch {
		case bar != nil && x.State != warm.Running:
			bar.Abort(true)
			delete(b.images, i)
		case bar == nil && x.State == warm.Running && x.BytesTotal > 0 && len(b.images) < maxBars:
			bar = b.bar(x.Image, i, i)
			b.images[i] = bar
		}
		if bar != nil {
			bar.SetTotal(x.BytesTotal, false)
			bar.SetCurrent(x.BytesDone)
		}
	}
	b.all.SetTotal(j.BytesTotal, false)
	b.all.SetCurrent(j.BytesDone)
}

// Write writes lines that stay.
func (b *bars) Write(text []byte) (int, error) {
	if b.above {
		if n, err := b.progress.Write(text); err == nil {
			return n, nil
		}
	}
	return b.out.Write(text)
}

func (b *bars) close() {
	for _, bar := range b.images {
		bar.Abort(true)
	}
	b.all.Abort(true)
	b.progress.Wait()
}
