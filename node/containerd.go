package node

import (
	"fmt"
	"path"
	"strings"

	"github.com/registrymirror/mirror/client"
)

// CertsDir is the folder in which containerd looks for a folder of each registry.
const CertsDir = "/etc/containerd/certs.d"

// Mark is in the first line of each file that is written as a whole. It says that the file may be replaced, and removed.
const Mark = "# Written by mirror setup: it replaces this file, and removes it with --uninstall."

// quote writes a string of TOML, which is checked to be printable ASCII.
func quote(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

// hostsTOML is the hosts.toml of a registry. Server is where containerd goes on; empty: to the registry that the image names.
// Source: https://github.com/containerd/containerd/blob/main/docs/hosts.md.
func (s *settings) hostsTOML(server string) string {
	var b strings.Builder
	b.WriteString(Mark + "\n")
	switch {
	case s.NoFallback:
		// Without a [host] beside it, containerd 1.x takes a file with server alone for broken, and asks the registry.
		fmt.Fprintf(&b, "# The mirror stands where the registry would: there is no way around it.\nserver = %s\n", quote(s.Mirror))
		s.connection(&b, "", "header") // it is asked a second time there: containerd 1.x shows that answer in the place of a 404
		b.WriteString("\n")
	case server != "":
		fmt.Fprintf(&b, "# Where containerd goes on if the mirror can't be reached or refuses.\nserver = %s\n\n", quote(server))
	default:
		b.WriteString("# For each registry without a folder of its own. No server line: containerd goes on to the registry of the image.\n")
	}
	host := "host." + quote(s.Mirror)
	fmt.Fprintf(&b, "[%s]\n  capabilities = [\"pull\", \"resolve\"]\n", host)
	s.connection(&b, "  ", host+".header")
	return b.String()
}

// connection writes how the mirror is connected to, and the headers that it is sent.
func (s *settings) connection(b *strings.Builder, margin, header string) {
	fmt.Fprintf(b, "%sdial_timeout = %s # containerd 2.0 and later read it\n", margin, quote(s.timeout().String()))
	if s.CA != "" {
		fmt.Fprintf(b, "%sca = %s\n", margin, quote(s.CA))
	}
	if s.ClientCert != "" {
		fmt.Fprintf(b, "%sclient = [[%s, %s]]\n", margin, quote(s.ClientCert), quote(s.ClientKey))
	}
	if s.Node == "" && s.Authorization == "" {
		return
	}
	fmt.Fprintf(b, "%s[%s]\n", margin, header)
	if s.Node != "" {
		fmt.Fprintf(b, "%s  %s = %s\n", margin, client.NodeHeader, quote(s.Node))
	}
	if s.Authorization != "" {
		fmt.Fprintf(b, "%s  Authorization = %s\n", margin, quote(s.Authorization))
	}
}

// folders are the hosts.toml files below a folder.
func (s *settings) folders(dir string) (files []File) {
	add := func(name, server string) {
		files = append(files, File{Path: path.Join(dir, name, hostsFile), Secret: s.Authorization != "", Content: s.hostsTOML(server)})
	}
	for _, r := range s.Registries {
		add(r.Name, r.server())
	}
	if s.Default {
		add("_default", "")
	}
	return files
}

const (
	onePath = "config_path must name one folder: of a list such as /etc/containerd/certs.d:/etc/docker/certs.d, which some clouds set, " +
		"containerd 2.1 and later read nothing, unless the image is pulled in the old way."
	noRestart   = "containerd reads hosts.toml at each pull. A change of config.toml needs a restart of containerd; running containers go on."
	noWayAround = "There is no way around the mirror. Never use this for the registry of the mirror's own image, and set clientsFallBack: " +
		"false in the mirror, so that its refusals say what to change."
)

// Containerd is the configuration of containerd 1.6 and later. Dir is the folder of the registries' folders; empty: CertsDir.
func Containerd(o Options, dir string) (Output, error) {
	s, err := o.read()
	if err != nil {
		return Output{}, err
	}
	if dir == "" {
		dir = CertsDir
	}
	out := Output{Files: s.folders(dir)}
	out.Files = append(out.Files,
		File{Path: "/etc/containerd/config.toml", Part: true, Content: `# containerd 2.x (version = 3). A file of its own in /etc/containerd/conf.d does as well, if imports names that folder.
[plugins."io.containerd.cri.v1.images".registry]
  config_path = ` + quote(dir) + "\n"},
		File{Path: "/etc/containerd/config.toml", Part: true, Content: `# containerd 1.6 and 1.7 (version = 2). In the main file: an imported file would replace the whole table of the plugin.
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = ` + quote(dir) + "\n"})
	out.Notes = append(out.Notes, noRestart, onePath,
		"Remove mirrors, configs and auths below registry in config.toml: beside config_path they keep the CRI plugin from loading, and the "+
			"node is NotReady.",
		"Try it: ctr images pull --hosts-dir "+dir+" IMAGE, or crictl pull IMAGE.")
	if s.Authorization != "" && isInClear(urlOf(s.Mirror)) { // it is a URL: read has checked it
		out.Notes = append(out.Notes, "The login goes to "+s.Mirror+" in clear text: give the mirror a certificate, and write https:// with --ca: mirror "+
			"setup tls makes them.")
	}
	if s.NoFallback {
		out.Notes = append(out.Notes, noWayAround)
	}
	return out, nil
}

// MicroK8s is the configuration of MicroK8s, which has containerd with a folder of its own.
func MicroK8s(o Options) (Output, error) {
	s, err := o.read()
	if err != nil {
		return Output{}, err
	}
	return Output{
		Files: s.folders("/var/snap/microk8s/current/args/certs.d"),
		Notes: []string{"Restart MicroK8s afterwards, once on each node: microk8s stop && microk8s start."},
	}, nil
}

// EKS is the configuration of nodes of Amazon Linux 2023, as user data for nodeadm.
func EKS(o Options) (Output, error) {
	s, err := o.read()
	if err != nil {
		return Output{}, err
	}
	var b strings.Builder
	b.WriteString(`MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="mirror"

--mirror
Content-Type: application/node.eks.aws

apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  containerd:
    config: |
      [plugins."io.containerd.cri.v1.images".registry]
        config_path = ` + quote(CertsDir) + `

--mirror
Content-Type: text/x-shellscript; charset="us-ascii"

#!/bin/sh
set -eu
`)
	for _, f := range s.folders(CertsDir) {
		fmt.Fprintf(&b, "mkdir -p '%s'\ncat >'%s' <<'END'\n%sEND\n", path.Dir(f.Path), f.Path, f.Content)
	}
	b.WriteString("--mirror--\n")
	return Output{
		Files: []File{{Path: "user-data of the launch template", Content: b.String()}},
		Notes: []string{
			"The NodeConfig is for containerd 2.x of Amazon Linux 2023; it is merged with that of the cluster.",
			"Without fastImagePull: the SOCI snapshotter reads no hosts.toml for layers, see mirror setup soci.",
			"Bottlerocket has settings of its own: see mirror setup bottlerocket.",
		},
	}, nil
}

// Bottlerocket is the configuration of Bottlerocket, as its settings.
func Bottlerocket(o Options) (Output, error) {
	s, err := o.readFor(target{name: "Bottlerocket"})
	if err != nil {
		return Output{}, err
	}
	var b strings.Builder
	for _, name := range s.names() {
		fmt.Fprintf(&b, "[[settings.container-registry.mirrors]]\nregistry = %s\nendpoint = [%s]\n\n", quote(name), quote(s.Mirror))
	}
	out := Output{
		Files: []File{{Path: "user-data of the launch template", Part: true, Content: strings.TrimSuffix(b.String(), "\n")}},
		Notes: []string{"The registry itself always comes last: it is asked if the mirror can't be reached or refuses."},
	}
	if s.CA != "" {
		out.Notes = append(out.Notes, "Give it the mirror's CA as settings.pki.NAME with data (the certificates in base64) and trusted = true.")
	}
	return out, nil
}

// names are the names of the registries, with "*" for all others.
func (s *settings) names() (list []string) {
	for _, r := range s.Registries {
		list = append(list, r.Name)
	}
	if s.Default {
		list = append(list, "*")
	}
	return list
}

// GKE is the configuration of a node pool, as a file for gcloud's --containerd-config-from-file.
func GKE(o Options) (Output, error) {
	s, err := o.readFor(target{name: "GKE's configuration of containerd"})
	if err != nil {
		return Output{}, err
	}
	var b strings.Builder
	b.WriteString("registryHosts:\n")
	for _, r := range s.Registries {
		fmt.Fprintf(&b, "- server: %s\n  hosts:\n  - host: %s\n    capabilities:\n    - HOST_CAPABILITY_PULL\n    - HOST_CAPABILITY_RESOLVE\n"+
			"    dialTimeout: %s\n", quote(r.server()), quote(s.Mirror), quote(fmt.Sprint(s.timeout().Seconds(), "s"))) // as the API has it: seconds
		if s.CA != "" {
			b.WriteString("    ca:\n    - gcpSecretManagerSecretUri: projects/PROJECT/secrets/SECRET/versions/VERSION # the mirror's CA\n")
		}
	}
	return Output{
		Files: []File{{Path: "containerd-config.yaml", Content: b.String()}},
		Notes: []string{
			"gcloud container node-pools update POOL --cluster CLUSTER --containerd-config-from-file=containerd-config.yaml: the nodes are made anew.",
			"At most 25 registries; there is no entry for all others.",
		},
	}, nil
}

// SOCI is the configuration of the SOCI snapshotter, which fetches layers by itself.
func SOCI(o Options) (Output, error) {
	return snapshotter(o, "the SOCI snapshotter", "/etc/soci-snapshotter-grpc/config.toml", "soci-snapshotter-grpc", true)
}

// Stargz is the configuration of the stargz snapshotter, which fetches layers by itself.
func Stargz(o Options) (Output, error) {
	return snapshotter(o, "the stargz snapshotter", "/etc/containerd-stargz-grpc/config.toml", "containerd-stargz-grpc", false)
}

// snapshotter is the configuration of one that has a resolver of its own: without it layers are fetched past the mirror.
// SOCI reads the host as a URL, stargz without a scheme.
func snapshotter(o Options, name, file, service string, asURL bool) (Output, error) {
	s, err := o.readFor(target{name: name})
	if err == nil && s.CA != "" {
		err = fmt.Errorf("%s has no setting for the CA of a mirror: add it to the certificates of the system", name)
	}
	if err != nil {
		return Output{}, err
	}
	host := s.host
	if asURL {
		host = s.Mirror
	}
	var b strings.Builder
	for _, r := range s.Registries {
		fmt.Fprintf(&b, "[[resolver.host.%s.mirrors]]\nhost = %s\n", quote(r.Name), quote(host))
		if s.plain() {
			b.WriteString("insecure = true\n")
		}
	}
	return Output{
		Files: []File{{Path: file, Part: true, Content: b.String()}},
		Notes: []string{
			"This is beside the hosts.toml of containerd (mirror setup containerd): containerd fetches manifests, the snapshotter layers.",
			"Restart it afterwards: systemctl restart " + service + ".",
		},
	}, nil
}
