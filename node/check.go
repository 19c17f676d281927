package node

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/registrymirror/mirror/internal/regular"
	"github.com/registrymirror/mirror/internal/text"
)

// Level is how bad a finding is.
type Level string

// The levels.
const (
	Broken  Level = "broken"  // images are pulled past the mirror, or not at all
	Warning Level = "warning" // some are, or will be after a change that is likely
	Note    Level = "note"    // good to know
)

// Finding is something in a node's files, or in an answer of the mirror, that keeps images from being pulled through it.
type Finding struct {
	Rule   string `json:"rule"`
	Level  Level  `json:"level"`
	File   string `json:"file,omitempty"` // on the node; empty: it is not about a file
	Line   int    `json:"line,omitempty"` // 0: it is about the whole file
	Cause  string `json:"cause"`
	Remedy string `json:"remedy"`
}

// podman is the Client of files that Podman and CRI-O read.
const podman = "Podman and CRI-O"

// Mirror is a mirror that a node's files name: this one, or another.
type Mirror struct {
	URL        string   // scheme, host and port
	Client     string   // the program that the file is of: "containerd", "Docker", or podman
	Registries []string // the registries whose images it is asked for; "*": all that have no other entry
	File       string
	Line       int
	CA         []string    // paths on the node; empty: the certificates of the system count
	Pairs      [][2]string // paths of the node's certificates and their keys; an empty key: it is in the file of the certificate
	SkipVerify bool        // the certificate is not checked
	Header     http.Header // sent with each request
}

// Report is what a node's files say.
type Report struct {
	Findings []Finding
	Mirrors  []Mirror
}

// Add counts findings in, the worst first.
func (r *Report) Add(list ...Finding) {
	r.Findings = append(r.Findings, list...)
	rank := map[Level]int{Broken: 0, Warning: 1, Note: 2}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return cmp.Compare(rank[a.Level], rank[b.Level]) })
}

// Broken reports whether a finding is one.
func (r *Report) Broken() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Level == Broken })
}

// For are the mirrors that are asked for the images of a registry: the entries with its name, or else those for all.
func (r *Report) For(registry string) (list []Mirror) {
	for _, name := range []string{registry, "*"} {
		for _, m := range r.Mirrors {
			if slices.Contains(m.Registries, name) {
				list = append(list, m)
			}
		}
		if len(list) > 0 {
			return list
		}
	}
	return nil
}

// Check reads the files of the container runtimes of a node below its root, and finds what keeps images from being pulled through a
// mirror. It writes nothing, contacts no host, and has no error: what can't be read is a finding. Make root with regular.Below, so that a
// pipe in the place of a file does not keep it waiting.
func Check(root fs.FS) *Report {
	c := &checker{root: root, folders: make(map[string]bool)}
	c.containerd()
	c.docker()
	c.containers()
	c.proxies()
	if len(c.Mirrors) == 0 && !c.Broken() {
		c.find(Broken, "no-mirror", "", 0, "no file of a container runtime on this node names a mirror",
			"mirror setup containerd --mirror URL --install, or mirror setup of the runtime that this node has")
	}
	c.Add()
	return &c.Report
}

type checker struct {
	Report
	root    fs.FS
	folders map[string]bool // of hosts.toml files, that were looked at
	product string          // that the node's containerd is part of
}

func (c *checker) find(level Level, rule, file string, line int, cause, remedy string) {
	c.Findings = append(c.Findings, Finding{Rule: rule, Level: level, File: file, Line: line, Cause: cause, Remedy: remedy})
}

// mirror counts a mirror in. One that is named for several registries is one.
func (c *checker) mirror(m Mirror, registry string) {
	i := slices.IndexFunc(c.Mirrors, func(o Mirror) bool { return o.URL == m.URL && o.Client == m.Client })
	if i < 0 {
		i = len(c.Mirrors)
		c.Mirrors = append(c.Mirrors, m)
	}
	if !slices.Contains(c.Mirrors[i].Registries, registry) {
		c.Mirrors[i].Registries = append(c.Mirrors[i].Registries, registry)
	}
}

// maxFile is the largest file of a node that is read, in bytes. A bundle of all public CAs has a quarter of a MiB.
const maxFile = 1 << 20

// maxLinks bounds the symbolic links on the way to a file.
const maxLinks = 40

// resolve is the name of a path of the node in root, without symbolic links: an absolute one leads from root, not from that of this
// process.
func (c *checker) resolve(name string) (string, error) {
	done, rest, links := "", strings.TrimPrefix(path.Clean("/"+name), "/"), 0
	for rest != "" {
		var element string
		element, rest, _ = strings.Cut(rest, "/")
		next := path.Join(done, element)
		target, err := fs.ReadLink(c.root, next)
		if err != nil { // it is not a link, or not there: opening it says so
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s leads through too many links", name)
		}
		if !path.IsAbs(target) {
			target = path.Join("/", done, target)
		}
		done, rest = "", strings.TrimPrefix(path.Join(target, rest), "/")
	}
	return cmp.Or(done, "."), nil
}

func (c *checker) read(name string) ([]byte, error) {
	at, err := c.resolve(name)
	if err != nil {
		return nil, err
	}
	return regular.ReadIn(c.root, at, maxFile)
}

// list are the names in a folder; nil: it is not there.
func (c *checker) list(dir string) (names []string) {
	at, err := c.resolve(dir)
	if err != nil {
		return nil
	}
	entries, _ := fs.ReadDir(c.root, at)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (c *checker) exists(name string) bool {
	at, err := c.resolve(name)
	if err == nil {
		_, err = fs.Stat(c.root, at)
	}
	return err == nil
}

// toml reads a TOML file; nil: it is not there, or broken, which is a finding with that consequence.
func (c *checker) toml(file, consequence string) *document {
	b, err := c.read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		c.unreadable(file, err, consequence)
		return nil
	}
	d, err := parseTOML(file, b)
	if err != nil {
		line, remedy := 0, "correct that line"
		if wrong, ok := errors.AsType[*toml.DecodeError](err); ok {
			line, _ = wrong.Position()
			if wrong.Key() != nil { // it can be read, and stands where another one is: TestDuplicates
				remedy = "a table or a key stands there a second time: keep one, with all of its settings"
			}
		}
		c.find(Broken, "toml-error", file, line, strings.TrimPrefix(err.Error(), "toml: ")+": "+consequence, remedy)
		return nil
	}
	return d
}

// unreadable reports a file that can't be read.
func (c *checker) unreadable(file string, err error, consequence string) {
	cause, remedy := "it can't be read: "+err.Error(), "run this as root, or with the node's root mounted read-only"
	if other, ok := errors.AsType[*regular.KindError](err); ok {
		cause, remedy = other.Kind+" stands in the place of this file: "+consequence, "remove it, or put a file there"
	}
	if large, ok := errors.AsType[*regular.SizeError](err); ok {
		cause, remedy = "it has more than "+text.Size(large.Most)+": "+consequence, "remove it, or put the right file there"
	}
	c.find(Broken, "unreadable", file, 0, cause, remedy)
}

// address reports why nodes can't reach a mirror at a URL, or will not always.
func (c *checker) address(file string, line int, u *url.URL) {
	if f := judgeAddress(u); f.Rule != "" {
		c.find(f.Level, f.Rule, file, line, f.Cause, f.Remedy)
	}
}

// judgeAddress is the finding about a mirror's address; without a rule: there is none.
func judgeAddress(u *url.URL) Finding {
	host := strings.TrimSuffix(u.Hostname(), ".")
	ip, err := netip.ParseAddr(host)
	port, _ := strconv.Atoi(u.Port())
	switch {
	case strings.HasSuffix(host, ".svc") || strings.Contains(host, ".svc.") || strings.HasSuffix(host, ".cluster.local"):
		return Finding{
			Level: Broken, Rule: "cluster-name", Cause: host + " is a name of the cluster's DNS, which nodes do not ask",
			Remedy: "use an address: that of the node (hostPort), the Service's ClusterIP, or a load balancer's name",
		}
	case (host == "localhost" || err == nil && ip.IsLoopback()) && port >= 30000 && port <= 32767:
		return Finding{
			Level: Warning, Rule: "loopback-nodeport", Cause: "a NodePort on " + host + " is not served by kube-proxy in the modes nftables and ipvs, " +
				"nor by most replacements of kube-proxy", Remedy: "use the node's own address in place of " + host + ", or a hostPort",
		}
	}
	return Finding{}
}

// Unreachable says why nodes can't reach a mirror at a URL, or not in every cluster, and what to do; empty: nothing speaks against it.
func Unreachable(mirror string) (cause, remedy string) {
	u := urlOf(mirror)
	if u == nil {
		return "", "" // a mistake of its own
	}
	f := judgeAddress(u)
	return f.Cause, f.Remedy
}

// urlOf is the URL of a mirror as files name it: https:// where no scheme is given. Nil: it is not one.
func urlOf(text string) *url.URL {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return nil
	}
	return u
}

// baseOf is a URL without its path.
func baseOf(u *url.URL) string { return u.Scheme + "://" + u.Host }

// itself reports whether a host is the registry of that name, and not a mirror of it.
func itself(host, registry string) bool {
	h, _, err := net.SplitHostPort(host)
	return host == registry || err == nil && h == registry || registry == "docker.io" && strings.HasSuffix(host, ".docker.io")
}
