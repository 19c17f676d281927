package images

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"go.yaml.in/yaml/v4"

	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/oci"
)

var (
	variable = regexp.MustCompile(`\$[{(A-Za-z_]`)
	imageID  = regexp.MustCompile(`^(sha256:)?[0-9a-f]{64}$`)
	// flag is an argument with a value.
	flag = regexp.MustCompile(`^--?[A-Za-z][A-Za-z0-9._-]*=(.+)$`)
	// other is a path, or has the end of a file's name.
	other = regexp.MustCompile(`(?i)^[/.]|^data:|\.(png|jpe?g|gif|svg|webp|ico|iso|qcow2|img)$`)
)

// name adds an image whose name stands in a place that is for one.
func (c *collector) name(line int, path, image string) {
	shown := strconv.Quote(text.Line(image, 100))
	switch {
	case strings.Contains(image, "{{") || strings.Contains(image, "{%"):
		c.problem(line, path, shown+" is a template; render it first, for example with \"helm template\"")
	case variable.MatchString(image):
		c.problem(line, path, shown+" has a variable; set it first, for example with \"docker compose config\" or envsubst")
	case imageID.MatchString(image):
		c.problem(line, path, shown+" is the id of an image on a node; give its name")
	default:
		ref, err := oci.ParseRef(image)
		if e, ok := errors.AsType[errcode.Error](err); ok {
			c.problem(line, path, e.Message)
			return
		}
		c.add(line, path, image, ref)
	}
}

// likely adds an image whose name stands in a place that may be for something else, if it can't be mistaken.
func (c *collector) likely(line int, path, image string) {
	if ref, ok := unmistakable(image); ok {
		c.add(line, path, image, ref)
	}
}

// unmistakable reports whether a text is the name of an image: it has a tag or a digest.
func unmistakable(image string) (oci.Ref, bool) {
	ref, err := oci.ParseRef(image)
	return ref, err == nil && isPinned(image) && !imageID.MatchString(image)
}

// isPinned reports whether a name has a tag or a digest.
func isPinned(image string) bool {
	return strings.Contains(image, "@") || strings.LastIndexByte(image, ':') > strings.LastIndexByte(image, '/')
}

// hasHost reports whether a name begins with a registry.
func hasHost(image string) bool {
	host, _, ok := strings.Cut(image, "/")
	return ok && oci.LooksLikeHost(host)
}

// isOther reports whether the value of a key "image" is something else: a switch, a picture, a file, a disk. In a container it
// is an image, but for the word that Istio replaces.
func isOther(n *yaml.Node, inContainer bool) bool {
	image := textOf(n)
	if inContainer {
		return image == "auto"
	}
	return resolve(n).ShortTag() == "!!bool" || isNumber(resolve(n)) || other.MatchString(image)
}

// parts are the parts of a name that stand in keys of their own.
type parts struct {
	registry, repository string
	tag                  *yaml.Node // nil: none
	digest               string
}

// String is the name.
func (p parts) String() string {
	s := p.repository
	if registry := strings.TrimSuffix(p.registry, "/") + "/"; registry != "/" && !strings.HasPrefix(s, registry) {
		s = registry + s
	}
	if p.tag != nil {
		s += ":" + strings.TrimSpace(p.tag.Value)
	}
	if p.digest != "" {
		if !strings.Contains(p.digest, ":") && imageID.MatchString(p.digest) {
			s += "@sha256:" + p.digest
		} else {
			s += "@" + p.digest
		}
	}
	return s
}

// put adds the image that parts name.
func (c *collector) put(line int, at string, p parts) {
	if p.tag != nil {
		if number, err := strconv.ParseFloat(p.tag.Value, 64); err == nil && isNumber(p.tag) && fmt.Sprint(number) != p.tag.Value {
			c.problem(line, at, fmt.Sprintf("the tag %s is a number, and programs make %v of it; write \"%[1]s\"", p.tag.Value, number))
			return
		}
	}
	name := p.String()
	if !isPinned(name) && !strings.Contains(name, "{{") && !variable.MatchString(name) {
		c.problem(line, at, fmt.Sprintf("%q has no tag here; give the output of \"helm template\" or \"kustomize build\"", text.Line(name, 100)))
		return
	}
	c.name(line, at, name)
}

func isNumber(n *yaml.Node) bool { return n.ShortTag() == "!!int" || n.ShortTag() == "!!float" }
