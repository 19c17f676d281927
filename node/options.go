package node

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

// Registry is one that nodes pull from through the mirror.
type Registry struct {
	Name string // as image names have it: "docker.io", "registry.example.com:5000"
	// Server is the URL of the registry itself, without a path: where the node goes on. Empty: https:// and the name; that of
	// docker.io is https://registry-1.docker.io.
	Server string
}

func (r Registry) server() string {
	switch {
	case r.Server != "":
		return r.Server
	case r.Name == "docker.io":
		return "https://registry-1.docker.io"
	}
	return "https://" + r.Name
}

// Options say how nodes reach the mirror, and for what.
type Options struct {
	Mirror     string // URL by which nodes reach the mirror: https://HOST:PORT, or http://
	Registries []Registry
	// Default has every other registry go through the mirror too, where the client has a setting for that.
	Default bool
	// NoFallback leaves the node no way around the mirror: not even for the mirror's own image.
	NoFallback bool
	// Node is the name that the node gives itself in the mirror's records. Empty: its address counts.
	Node string
	// Authorization is the value of the header of that name that is sent to the mirror. Empty: none is.
	Authorization string
	// CA is the path, on the node, of a file with the certificates that sign the mirror's. Empty: those of the system count.
	CA string
	// ClientCert and ClientKey are the paths, on the node, of the certificate and its key, PEM, by which it identifies itself to the mirror.
	// Empty: it shows none.
	ClientCert, ClientKey string
	// DialTimeout is how long a node waits for a connection to the mirror, before it goes on. 0: 200 ms, and 1 s with NoFallback.
	DialTimeout time.Duration
}

// File is a file of a node's configuration.
type File struct {
	Path string // on the node
	// Part says that the content is to be merged into a file that is there, not to replace it.
	Part bool
	// Line is the line of the file that a part replaces, or AtEnd. 0: a person has to find its place.
	Line    int
	Secret  bool // only root may read it
	Content string
}

// Output is what is to be done on a node.
type Output struct {
	Files []File
	Notes []string // what to do beside that, and what to know, a sentence each
}

// settings are the options as the files need them.
type settings struct {
	Options
	scheme, host string // of the mirror
}

func (s *settings) plain() bool { return s.scheme == "http" }

// timeout is the one of a connection. A pull waits for it seven times or so, one after the other: for the tag, the index, the
// manifest, and the layers, of which three are pulled at once. 1 s made 6.7 s of an image with eight layers.
func (s *settings) timeout() time.Duration {
	switch {
	case s.DialTimeout > 0:
		return s.DialTimeout
	case s.NoFallback: // there is nowhere to go on to
		return time.Second
	}
	return 200 * time.Millisecond
}

// read checks the options. Its errors name all mistakes.
func (o Options) read() (*settings, error) {
	s := &settings{Options: o}
	var wrong []error
	u, err := url.Parse(o.Mirror)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		wrong = append(wrong, fmt.Errorf("the mirror's address %q is not a URL as http://10.0.0.7:5000 or https://mirror.example", o.Mirror))
	case u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || !isHost(u.Host):
		wrong = append(wrong, fmt.Errorf("the mirror's address %q is more than a scheme, a host and a valid port", o.Mirror))
	default:
		s.scheme, s.host = u.Scheme, u.Host
		s.Mirror = u.Scheme + "://" + u.Host
	}
	if len(o.Registries) == 0 && !o.Default {
		wrong = append(wrong, errors.New("there is no registry to write a configuration for"))
	}
	for _, r := range o.Registries {
		if !isHost(r.Name) {
			wrong = append(wrong, fmt.Errorf("%q is not the name of a registry, as ghcr.io or registry.example.com:5000", r.Name))
			continue
		}
		if v, err := url.Parse(r.server()); err != nil || v.Host == "" || !isHost(v.Host) || v.Path != "" {
			wrong = append(wrong, fmt.Errorf("the address %q of registry %s is not a URL as https://registry.example.com", r.Server, r.Name))
		}
	}
	if !isText(o.Node) || len(o.Node) > 253 {
		wrong = append(wrong, fmt.Errorf("the node's name %q is not up to 253 printable characters", o.Node))
	}
	switch {
	case !isText(o.Authorization):
		wrong = append(wrong, errors.New("the value of Authorization is not one of a header"))
	case o.Authorization != "" && !isLogin(o.Authorization):
		wrong = append(wrong, errors.New("the value of Authorization has no scheme, so the mirror would not know the login: write Bearer and a "+
			"space in front of the token"))
	}
	wrong = append(wrong, s.readPair()...)
	if o.CA != "" && (!isText(o.CA) || !path.IsAbs(o.CA)) {
		wrong = append(wrong, fmt.Errorf("the CA file %q is not an absolute path on the node", o.CA))
	}
	if o.CA != "" && s.plain() {
		wrong = append(wrong, errors.New("a CA file is of no use for a mirror at http://: containerd would try https:// there"))
	}
	return s, errors.Join(wrong...)
}

// readPair checks the certificate of the node.
func (s *settings) readPair() (wrong []error) {
	if (s.ClientCert == "") != (s.ClientKey == "") {
		wrong = append(wrong, errors.New("a client certificate and its key belong together: give the paths of both"))
	}
	for _, p := range []string{s.ClientCert, s.ClientKey} {
		if p != "" && (!isText(p) || !path.IsAbs(p)) {
			wrong = append(wrong, fmt.Errorf("the file %q of the client certificate is not an absolute path on the node", p))
		}
	}
	if s.ClientCert != "" && s.plain() {
		wrong = append(wrong, errors.New("a client certificate is of no use for a mirror at http://: containerd would try https:// there"))
	}
	return wrong
}

// isInClear reports whether what is sent to a URL can be read on a network.
func isInClear(u *url.URL) bool {
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "http" && u.Hostname() != "localhost" && (err != nil || !ip.IsLoopback())
}

// isLogin reports whether the value of a header Authorization is a login that a mirror can know: a scheme, and one word.
func isLogin(value string) bool {
	scheme, rest, _ := strings.Cut(value, " ")
	rest = strings.TrimSpace(rest)
	return (strings.EqualFold(scheme, "Bearer") || strings.EqualFold(scheme, "Basic")) && rest != "" && !strings.Contains(rest, " ")
}

// isHost reports whether text is a host with or without a port, in which no character needs a quote anywhere.
func isHost(text string) bool {
	for _, c := range text {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]_", c) {
			return false
		}
	}
	u, err := url.Parse("//" + text)
	if err == nil && u.Port() != "" {
		_, err = strconv.ParseUint(u.Port(), 10, 16)
	}
	return err == nil && u.Hostname() != "" && !strings.ContainsAny(text[:1], "-._:") && !strings.Contains(text, "..") &&
		!strings.HasSuffix(text, ":")
}

// isText reports whether text has printable ASCII alone.
func isText(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' })
}

// target is what a client has settings for.
type target struct {
	name     string
	headers  bool   // that are sent to the mirror
	pair     bool   // a certificate of the node
	fallback bool   // whether the node goes on to the registry itself
	each     string // what it has for each registry and not for all of them: "entry", "flag"; empty: it can do with none
}

// readFor is read for a client. Options that it has no setting for are errors.
func (o Options) readFor(t target) (*settings, error) {
	s, err := o.read()
	if err != nil {
		return nil, err
	}
	var wrong []error
	if !t.headers && s.Node != "" {
		wrong = append(wrong, fmt.Errorf("%s has no setting for a header, so the node can't give its name: leave it out, and the mirror "+
			"records the node's address", t.name))
	}
	if !t.headers && s.Authorization != "" {
		wrong = append(wrong, fmt.Errorf("%s has no setting for a header, so it can't send Authorization", t.name))
	}
	if !t.pair && s.ClientCert != "" {
		wrong = append(wrong, fmt.Errorf("%s has no setting for a client certificate", t.name))
	}
	if !t.fallback && s.NoFallback {
		wrong = append(wrong, fmt.Errorf("%s always goes on to the registry itself", t.name))
	}
	if len(wrong) == 0 && t.each != "" && len(s.Registries) == 0 {
		wrong = append(wrong, fmt.Errorf("%s has no %s for all registries: name those that are pulled from", t.name, t.each))
	}
	return s, errors.Join(wrong...)
}
