package images

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/oci"
)

// Result is what was found.
type Result struct {
	Images   []Found   // each once, in the order in which they were found
	Problems []Problem // what could not be read, in the same order
}

// Found is one image.
type Found struct {
	Image  string  // as it is written in its first place; put together where its parts have keys of their own
	Ref    oci.Ref // its canonical name
	Places []Place // where it stands, the first hundred
}

// Place is a place in a file.
type Place struct {
	File     string // as it was named
	Document int    // from 1; 0: the file as a whole
	Line     int    // from 1; 0: the file as a whole
	Path     string // of the field: spec.containers[0].image; empty: a line of a list, or the document as a whole
}

// String is the place on one line, without characters that control a terminal: deploy.yaml:12 (document 3): spec.containers[0].image.
func (p Place) String() string {
	s := text.Line(p.File, len(p.File))
	if p.Line > 0 {
		s += fmt.Sprintf(":%d", p.Line)
	}
	if p.Document > 1 {
		s += fmt.Sprintf(" (document %d)", p.Document)
	}
	if p.Path != "" {
		s += ": " + text.Line(p.Path, len(p.Path))
	}
	return s
}

// Problem is something that could not be read.
type Problem struct {
	Place
	Text string // what is wrong, and what to do
}

// String is the problem on one line, with its place.
func (p Problem) String() string { return p.Place.String() + ": " + text.Line(p.Text, len(p.Text)) }

// Options are bounds. The zero value has the defaults.
type Options struct {
	MaxBytes  int64 // of all files together; zero: 64 MiB
	MaxImages int   // zero: 10,000
	// MaxValues is how many keys and values one document has at most, aliases counted each time; of a list in JSON, one item.
	// Each may take some 600 bytes of memory while it is read, garbage included. Zero: 1,000,000.
	MaxValues int
}

// The bounds that are not options.
const (
	maxDocuments = 10_000 // of one file
	maxDepth     = 200    // of values in values
	maxPlaces    = 100    // of one image
	maxProblems  = 1_000
	maxFiles     = 10_000 // of folders
)

// Read finds the images of one text. The file is its name in places.
func Read(file string, r io.Reader, o Options) Result {
	c := newCollector(o)
	c.read(file, r)
	return c.result
}

// collector gathers the images of one text after the other.
type collector struct {
	Options
	result   Result
	known    map[oci.Ref]int // the index in result.Images
	full     bool            // there were more images than MaxImages
	left     int64           // bytes that may still be read
	file     string          // that is being read
	inFolder bool            // the file was found in a folder, and not named
	document int             // that is being read, from 1
}

func newCollector(o Options) *collector {
	o.MaxBytes = cmp.Or(o.MaxBytes, 64<<20)
	o.MaxImages = cmp.Or(o.MaxImages, 10_000)
	o.MaxValues = cmp.Or(o.MaxValues, 1_000_000)
	return &collector{Options: o, left: o.MaxBytes, known: make(map[oci.Ref]int)}
}

// add adds an image that was found in a place.
func (c *collector) add(line int, path, image string, ref oci.Ref) {
	i, known := c.known[ref]
	if !known {
		if len(c.result.Images) == c.MaxImages {
			if !c.full {
				c.problem(line, path, fmt.Sprintf("more than %d images; this one and others after it are left out", c.MaxImages))
			}
			c.full = true
			return
		}
		i = len(c.result.Images)
		c.known[ref] = i
		c.result.Images = append(c.result.Images, Found{Image: image, Ref: ref})
	}
	found, place := &c.result.Images[i], c.place(line, path)
	if len(found.Places) < maxPlaces && !slices.Contains(found.Places, place) {
		found.Places = append(found.Places, place)
	}
}

// problem adds a problem with a place. One that aliases repeat is listed once.
func (c *collector) problem(line int, path, what string) {
	place := c.place(line, path)
	n := len(c.result.Problems)
	same := func(p Problem) bool {
		return p.Line == line && p.Document == place.Document && p.Text == what && p.File == place.File
	}
	switch {
	case n > maxProblems, slices.ContainsFunc(c.result.Problems, same):
		return
	case n == maxProblems:
		place.Path, what = "", fmt.Sprintf("more than %d problems; this one and others after it are not listed", maxProblems)
	}
	c.result.Problems = append(c.result.Problems, Problem{place, what})
}

func (c *collector) place(line int, path string) Place {
	return Place{File: c.file, Document: c.document, Line: line, Path: path}
}
