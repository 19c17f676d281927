package images

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/registrymirror/mirror/internal/text"
)

// walker goes through the values of one document.
type walker struct {
	*collector
	before   int  // lines of the file before the first that nodes count
	left     int  // values that may still be visited
	deep     bool // a value was too deep, which was reported
	template bool // a template was found, which was reported
}

// walk finds the images of a document, or of an item of one, which has a path.
func (c *collector) walk(root *yaml.Node, at string, before int) {
	w := &walker{collector: c, before: before, left: c.MaxValues}
	w.value(root, at, "", 0)
	if w.left < 0 {
		c.problem(w.line(root), at,
			fmt.Sprintf("more than %d values, aliases (*name) counted each time; the rest of the document is not read", c.MaxValues))
	}
}

func (w *walker) line(n *yaml.Node) int { return n.Line + w.before }

// value goes through a value. The key is that of the mapping it is in; an item of a list has the list's.
func (w *walker) value(n *yaml.Node, at, key string, depth int) {
	if w.left--; w.left < 0 {
		return
	}
	if depth > maxDepth {
		if !w.deep {
			w.problem(w.line(n), at, fmt.Sprintf("deeper than %d values; what is below is not read", maxDepth))
		}
		w.deep = true
		return
	}
	switch n := resolve(n); n.Kind {
	case yaml.MappingNode:
		w.mapping(n, at, key, depth)
	case yaml.SequenceNode:
		for i, item := range n.Content {
			path := join(at, "", "["+strconv.Itoa(i)+"]")
			if resolve(item).Kind == yaml.ScalarNode {
				w.left--
				w.item(item, at, path, key)
				continue
			}
			w.value(item, path, key, depth+1)
		}
	}
}

// item takes the image of an item of a list, which stands at a path and has a key.
func (w *walker) item(n *yaml.Node, list, at, key string) {
	image := textOf(n)
	switch {
	case image == "":
	case list == "" || list == "images": // a list, or the API's own body
		w.name(w.line(n), at, image)
	case isImages(key):
		_, newName, _ := strings.Cut(image, "=") // Argo CD replaces: old=new
		w.likely(w.line(n), at, cmp.Or(newName, image))
	case key == "args" || key == "command":
		if m := flag.FindStringSubmatch(image); m != nil && hasHost(m[1]) {
			w.likely(w.line(n), at, m[1])
		}
	}
}

// mapping takes the image of a mapping, and goes through its values.
func (w *walker) mapping(n *yaml.Node, at, key string, depth int) {
	if isTemplate(n) {
		if !w.template {
			w.problem(w.line(n), at, "a template that was not rendered (give the output of \"helm template\")")
		}
		w.template = true
		return
	}
	m := w.entries(n, depth)
	if m.isForeign() {
		return
	}
	w.image(m, at, key)
	for _, e := range m {
		path := join(at, ".", e.key)
		switch {
		case isIgnored(e.key), e.key == "status" && (m.has("spec") || m.has("kind")), e.key == "image" && textOf(e.value) != "":
		case resolve(e.value).Kind != yaml.ScalarNode:
			w.value(e.value, path, e.key, depth+1)
		case e.key == "storageUri": // of KServe; elsewhere oci:// is a cloud's bucket
			if image, ok := strings.CutPrefix(textOf(e.value), "oci://"); ok && hasHost(image) {
				w.likely(w.line(e.value), path, image)
			}
		case isImage(e.key) || strings.HasSuffix(e.key, "mageName"):
			w.likely(w.line(e.value), path, textOf(e.value))
		}
	}
}

// image takes the image that the entries of a mapping name together. The key is where the mapping stands.
func (w *walker) image(m entries, at, key string) {
	image, repository, name := m.get("image"), m.get("repository"), m.get("name")
	p := parts{registry: m.text("registry", "imageRegistry"), tag: m.get("tag", "imageTag"), digest: m.text("digest", "sha")}
	if p.tag == nil && (isImage(key) || repository != nil && image != nil) {
		p.tag = m.get("version")
	}
	if m.text("useDigest") == "false" {
		p.digest = ""
	}
	switch {
	case isImages(key) && (m.has("newName", "newTag") || image == nil && p.digest != ""): // a Kustomization
		if name := m.get("newName", "name"); name != nil {
			w.put(w.line(name), at, parts{repository: textOf(name), tag: m.get("newTag"), digest: p.digest})
		}
	case repository != nil && (isImage(key) || p.tag != nil || p.digest != ""):
		p.repository = textOf(repository)
		if image != nil {
			p.repository += "/" + textOf(image)
		}
		if !strings.Contains(p.repository, "://") { // else a repository of code
			w.put(w.line(repository), at, p)
		}
	case image != nil:
		w.plain(m, image, p, at, key)
	case m.text("type") == "image" && m.get("source") != nil: // a volume of Compose
		w.name(w.line(m.get("source")), join(at, ".", "source"), m.text("source"))
	case isImage(key) && m.get("reference") != nil: // a volume of a pod
		w.name(w.line(m.get("reference")), join(at, ".", "reference"), m.text("reference"))
	case name == nil:
	case m.text("kind") == "DockerImage": // of OpenShift
		w.name(w.line(name), join(at, ".", "name"), textOf(name))
	case isImage(key) && p.tag != nil:
		p.repository = textOf(name)
		w.put(w.line(name), at, p)
	case isImage(key), isImages(key):
		w.likely(w.line(name), join(at, ".", "name"), textOf(name))
	case isImage(textOf(name)) || strings.HasPrefix(textOf(name), "RELATED_IMAGE_"): // a variable of a container
		if value := m.get("value"); value != nil {
			w.likely(w.line(value), join(at, ".", "value"), textOf(value))
		}
	}
}

// plain takes the image of a key "image" with a text. The other parts are those of the keys beside it.
func (w *walker) plain(m entries, n *yaml.Node, p parts, at, key string) {
	image, line := textOf(n), w.line(n)
	p.repository = image
	inContainer := strings.HasSuffix(strings.ToLower(key), "containers")
	switch policy := strings.ToLower(m.text("pull_policy", "imagePullPolicy")); {
	case policy == "never", policy == "build", m.has("build") && !hasHost(image): // Compose would look for it, and then build it
	case isOther(n, inContainer):
	case inContainer, isPinned(image), !isImage(key) && p.tag == nil && p.digest == "" && !m.has("tag", "imageTag"):
		w.name(line, join(at, ".", "image"), image)
	default:
		if hasHost(image) {
			p.registry = ""
		}
		w.put(line, join(at, ".", "image"), p)
	}
}

// entries are those of a mapping, with the merged ones.
type entries []entry

type entry struct {
	key   string
	value *yaml.Node
}

// entries reads the entries of a mapping. What is merged (<<) does not replace what is there.
func (w *walker) entries(n *yaml.Node, depth int) entries {
	var m entries
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		if w.left--; w.left < 0 {
			break
		}
		key, value := resolve(n.Content[i]), n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode:
		case key.ShortTag() != "!!merge":
			m = append(m, entry{key.Value, value})
		case resolve(value).Kind == yaml.SequenceNode:
			merged = append(merged, resolve(value).Content...)
		default:
			merged = append(merged, value)
		}
	}
	if len(merged) == 0 || depth > maxDepth {
		return m
	}
	known := make(map[string]bool, len(m))
	for _, e := range m {
		known[e.key] = true
	}
	for _, n := range merged {
		if n = resolve(n); n.Kind != yaml.MappingNode {
			continue
		}
		for _, e := range w.entries(n, depth+1) {
			if !known[e.key] {
				m = append(m, e)
			}
			known[e.key] = true
		}
	}
	return m
}

func (m entries) has(keys ...string) bool {
	return slices.ContainsFunc(m, func(e entry) bool { return slices.Contains(keys, e.key) })
}

// get is the value of the first of the keys that has a text.
func (m entries) get(keys ...string) *yaml.Node {
	for _, key := range keys {
		for _, e := range m {
			if e.key == key && textOf(e.value) != "" {
				return e.value
			}
		}
	}
	return nil
}

func (m entries) text(keys ...string) string {
	if n := m.get(keys...); n != nil {
		return textOf(n)
	}
	return ""
}

// isForeign reports whether a mapping is an object whose fields of these names are not images that a pod uses: schemas,
// patterns of policies, repositories that are watched.
func (m entries) isForeign() bool {
	group, _, _ := strings.Cut(m.text("apiVersion"), "/")
	return m.text("kind") == "CustomResourceDefinition" || m.has("$schema") && m.has("properties") ||
		strings.HasSuffix("."+group, ".kyverno.io") || group == "image.toolkit.fluxcd.io"
}

// isIgnored reports whether what is in a key describes an object, and is not its content: podLabels, annotations.
func isIgnored(key string) bool {
	return strings.HasSuffix(key, "abels") || strings.HasSuffix(key, "nnotations")
}

func isImage(key string) bool { return strings.HasSuffix(strings.ToLower(key), "image") }

func isImages(key string) bool { return strings.HasSuffix(strings.ToLower(key), "images") }

// isTemplate reports whether a value is {{ ... }}, which YAML takes for a mapping with a mapping as its key.
func isTemplate(n *yaml.Node) bool {
	return n.Style&yaml.FlowStyle != 0 && len(n.Content) > 0 && n.Content[0].Kind == yaml.MappingNode
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

// textOf is the text of a value; empty if it has none.
func textOf(n *yaml.Node) string {
	n = resolve(n)
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" || n.Tag == "!reset" { // Compose removes what has !reset
		return ""
	}
	return strings.TrimSpace(n.Value)
}

// join is a path with one more part. It grows no further where it is long.
func join(at, separator, part string) string {
	const longest = 256
	switch {
	case at == "":
		return text.Line(part, 64)
	case len(at) > longest:
		return at
	}
	return at + separator + text.Line(part, 64)
}
