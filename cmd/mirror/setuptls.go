package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/internal/authority"
	"github.com/registrymirror/mirror/internal/regular"
)

// certificates is what mirror setup tls is to make.
type certificates struct {
	dir          string
	hosts, nodes []string
	operators    []string
	valid        time.Duration
	renew, force bool
	now          time.Time
}

// pairFile is a certificate with its key, as they are to be written.
type pairFile struct {
	name string // without .crt and .key, below the folder
	authority.Pair
}

func newSetupTLSCmd() *cobra.Command {
	c := certificates{valid: 365 * 24 * time.Hour}
	cmd := &cobra.Command{
		Use:   "tls",
		Short: "Make certificates: an authority, the mirror's, and those of nodes",
		Long: `Make the certificates of a cluster: an authority of its own (ca.crt, ca.key), the mirror's
for the names and addresses of --host (tls.crt, tls.key), and one for each --node, by which
rules can name it as node:NAME (nodes/NAME.crt, nodes/NAME.key). With --operator: one for an
operator, who shows it to the admin listener (operators/NAME.crt, operators/NAME.key;
admin.operators.ca is ca.crt then). Keys are readable by their owner alone. Keep ca.key
away from the mirror and the nodes: it can make any of these.

An authority that is there is used: nodes are added by a further call. Files that are there
are not overwritten: with --renew certificates are made again, by the same authority (those
of the named nodes, or of all, and the mirror's, for its old names where there is no
--host); with --force the authority, too, which nodes then have to get anew.

Exit codes: 0 made; 1 files are there already, or can't be read or written; 2 wrong usage.`,
		Example: `  mirror setup tls --dir pki --host mirror.example --host 10.0.0.7 --node worker-1 --node worker-2
  mirror setup tls --dir pki --node worker-3
  mirror setup tls --dir pki --operator alice
  mirror setup tls --dir pki --renew`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.now = time.Now()
			if err := c.check(); err != nil {
				return err
			}
			made, err := c.make()
			if err != nil {
				return &exitError{exitFailed, err}
			}
			return write(cmd.OutOrStdout(), c.steps(made))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.dir, "dir", "mirror-pki", "`folder` of the files")
	flags.StringArrayVar(&c.hosts, "host", nil, "a `name` or address by which clients reach the mirror; may be repeated")
	flags.StringArrayVar(&c.nodes, "node", nil, "`name` of a node that gets a certificate; may be repeated")
	flags.StringArrayVar(&c.operators, "operator", nil, "`name` of an operator that gets a certificate for the admin listener; may be repeated")
	flags.Var(lengthFlag{"--valid", &c.valid}, "valid", "how long the certificates of the mirror, of nodes and of operators are valid; the authority's is for ten years")
	flags.BoolVar(&c.renew, "renew", false, "make certificates that are there again, by the same authority")
	flags.BoolVar(&c.force, "force", false, "overwrite everything, the authority too")
	return cmd
}

// maxOperator is how long the name of an operator may be in a certificate: RFC 5280 bounds common names.
const maxOperator = 64

var hostPattern = regexp.MustCompile(`^(\*\.)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

// check refuses flags that can't be meant.
func (c *certificates) check() error {
	for _, host := range c.hosts {
		if _, err := netip.ParseAddr(host); err != nil && !hostPattern.MatchString(host) {
			return fmt.Errorf("--host %s is not a name or an address; write it without https:// and port, as in mirror.example or 10.0.0.7", host)
		}
	}
	for _, node := range c.nodes {
		if !identity.IsNodeName(node) {
			return fmt.Errorf("--node %s is not the name of a node; write it as kubectl get nodes shows it", node)
		}
	}
	for _, operator := range c.operators {
		if err := identity.CheckName(operator); err != nil || len(operator) > maxOperator {
			return fmt.Errorf("--operator %s is not the name of an operator; write at most %d letters, digits and . _ @ + -", operator, maxOperator)
		}
	}
	if c.valid < time.Hour {
		return fmt.Errorf("--valid %s is too short; write at least 1h", c.valid)
	}
	if c.renew && c.force {
		return errors.New("--renew keeps the authority, and --force does not; give one of them")
	}
	return nil
}

// exists reports whether a file is there.
func (c *certificates) exists(name string) bool {
	_, err := os.Lstat(filepath.Join(c.dir, name))
	return !errors.Is(err, fs.ErrNotExist)
}

// make makes what is missing, or what is to be renewed. Nothing is written before all of it was made.
func (c *certificates) make() ([]pairFile, error) {
	var list []pairFile
	a, err := c.authority(&list)
	if err != nil {
		return nil, err
	}
	if err := c.complete(); err != nil {
		return nil, err
	}
	if len(c.hosts) > 0 {
		pair, err := a.Mirror(c.hosts, c.now, c.valid)
		if err != nil {
			return nil, err
		}
		list = append(list, pairFile{"tls", pair})
	}
	for _, kind := range []struct {
		folder string
		names  []string
		issue  func(string, time.Time, time.Duration) (authority.Pair, error)
	}{{"nodes", c.nodes, a.Node}, {"operators", c.operators, a.Operator}} {
		for _, name := range kind.names {
			pair, err := kind.issue(name, c.now, c.valid)
			if err != nil {
				return nil, err
			}
			list = append(list, pairFile{filepath.Join(kind.folder, name), pair})
		}
	}
	if len(list) == 0 {
		return nil, errors.New("there is nothing to make; give --host, --node or --operator, or --renew")
	}
	if err := c.refuse(list); err != nil {
		return nil, err
	}
	return list, c.save(list)
}

// authority is the one in the folder, or a new one, which is then added to the list.
func (c *certificates) authority(list *[]pairFile) (*authority.Authority, error) {
	if c.exists("ca.crt") && !c.force {
		cert, err := regular.Read(filepath.Join(c.dir, "ca.crt"), config.MaxFile)
		if err != nil {
			return nil, fmt.Errorf("read the authority: %w", err)
		}
		key, err := regular.Read(filepath.Join(c.dir, "ca.key"), config.MaxFile)
		if err != nil {
			return nil, fmt.Errorf("read the key of the authority: %w; bring it back for as long as this runs", err)
		}
		a, err := authority.Load(authority.Pair{Cert: cert, Key: key})
		if err == nil && !a.Ends().After(c.now) {
			err = errors.New("it has expired; make a new one with --force")
		}
		if err != nil {
			return nil, fmt.Errorf("the authority in %s: %w", c.dir, err)
		}
		return a, nil
	}
	if c.renew {
		return nil, fmt.Errorf("there is no authority in %s to renew certificates by; leave out --renew, or correct --dir", c.dir)
	}
	a, pair, err := authority.New("mirror "+c.now.UTC().Format("2006-01-02"), c.now)
	*list = append(*list, pairFile{"ca", pair})
	return a, err
}

// complete adds what is renewed without being named.
func (c *certificates) complete() error {
	if !c.renew {
		return nil
	}
	if len(c.hosts) == 0 {
		b, err := regular.Read(filepath.Join(c.dir, "tls.crt"), config.MaxFile)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read the mirror's certificate: %w", err)
		}
		if block, _ := pem.Decode(b); block != nil {
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return fmt.Errorf("read the mirror's certificate: %w", err)
			}
			c.hosts = slices.Clone(cert.DNSNames)
			for _, ip := range cert.IPAddresses {
				c.hosts = append(c.hosts, ip.String())
			}
		}
	}
	if len(c.nodes) > 0 || len(c.operators) > 0 {
		return nil
	}
	var err error
	if c.nodes, err = c.issued("nodes", identity.IsNodeName); err != nil {
		return err
	}
	c.operators, err = c.issued("operators", func(name string) bool { return identity.CheckName(name) == nil })
	return err
}

// issued are the names of the certificates that are in a folder.
func (c *certificates) issued(folder string, fits func(string) bool) (names []string, err error) {
	entries, err := os.ReadDir(filepath.Join(c.dir, folder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the %s: %w", folder, err)
	}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".crt"); ok && fits(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// refuse is an error where a file would be overwritten without having been asked for.
func (c *certificates) refuse(list []pairFile) error {
	if c.force {
		return nil
	}
	var there []string
	for _, p := range list {
		if c.renew && p.name != "ca" {
			continue
		}
		for _, name := range []string{p.name + ".crt", p.name + ".key"} {
			if c.exists(name) {
				there = append(there, filepath.Join(c.dir, name))
			}
		}
	}
	if len(there) == 0 {
		return nil
	}
	return fmt.Errorf("%s would be overwritten; nothing was written: give --renew to make certificates again by the same authority, "+
		"or --force", strings.Join(there, ", "))
}

// save writes keys before their certificates, so that a certificate that is there has its key. A file is there as a whole or as it was.
func (c *certificates) save(list []pairFile) error {
	for _, p := range list {
		if _, err := tls.X509KeyPair(p.Cert, p.Key); err != nil {
			return fmt.Errorf("the certificate %s does not fit its key: %w", p.name, err)
		}
		path := filepath.Join(c.dir, p.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("make the folder: %w", err)
		}
		if err := replaceFile(path+".key", p.Key, 0o600); err != nil {
			return err
		}
		if err := replaceFile(path+".crt", p.Cert, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// steps say what was made, and what to do with it.
func (c *certificates) steps(made []pairFile) string {
	var b strings.Builder
	for _, p := range made {
		fmt.Fprintf(&b, "%s.crt, %s.key\n", filepath.Join(c.dir, p.name), filepath.Join(c.dir, p.name))
	}
	number := 0
	step := func(format string, args ...any) {
		number++
		fmt.Fprintf(&b, "%d. "+format+"\n", append([]any{number}, args...)...)
	}
	b.WriteString("\nNext:\n")
	step("Keep ca.key where neither the mirror nor a node can read it.")
	if len(c.hosts)+len(c.nodes)+len(c.operators) == 0 {
		step("Make the mirror's certificate, and those of nodes:\n     mirror setup tls --dir %s --host NAME --node NODE", c.dir)
		return b.String()
	}
	if len(c.hosts) > 0 {
		step(`Give the mirror tls.crt and tls.key; it reads them again when they change. The setting itself needs a restart:
     tls: {cert: tls.crt, key: tls.key}`)
	}
	if len(c.nodes) > 0 {
		step(`Give the mirror ca.crt, and rules for the nodes; it reads them again when they change:
     clients: {ca: ca.crt}
     upstreams: {docker.io: {access: rules}}
     rules:
       - {who: ["node:*"], pull: ["docker.io/acme/**"]}`)
	}
	if len(c.hosts)+len(c.nodes) > 0 {
		pair, client := "", ""
		if len(c.nodes) > 0 {
			pair, client = ", and its own pair as client.cert and client.key", "\n       client = [[\"/etc/mirror/client.cert\", \"/etc/mirror/client.key\"]]"
		}
		step(`Give each node ca.crt%s.
   containerd, in each hosts.toml below /etc/containerd/certs.d:
     [host."https://%s"]
       ca = "/etc/mirror/ca.crt"%s
   Podman, CRI-O and Docker: the same files in
     /etc/containers/certs.d/%s/ (Docker: /etc/docker/certs.d)`, pair, c.mirror(), client, c.mirror())
	}
	if len(c.operators) > 0 {
		step(`Give the mirror ca.crt, and rights for the operators; the admin listener needs admin.tls:
     admin: {operators: {ca: ca.crt, rights: [{who: [%s], may: operate}]}}`, c.operators[0])
		step(`Give each operator its pair:
     mirror status --admin https://MIRROR:5001 --admin-cert %s.crt --admin-key %s.key
   and --admin-ca ca.crt where that has signed the certificate of admin.tls.`, c.operators[0], c.operators[0])
	}
	step("Before %s: mirror setup tls --dir %s --renew", c.now.Add(c.valid).UTC().Format(time.DateOnly), c.dir)
	return b.String()
}

// mirror is the address of the mirror in examples.
func (c *certificates) mirror() string {
	if len(c.hosts) == 0 {
		return "MIRROR:5000"
	}
	if ip, err := netip.ParseAddr(c.hosts[0]); err == nil && ip.Is6() {
		return "[" + c.hosts[0] + "]:5000"
	}
	return strings.TrimPrefix(c.hosts[0], "*.") + ":5000"
}
