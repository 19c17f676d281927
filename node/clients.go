package node

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"
)

// Podman is the configuration of Podman, Buildah and skopeo, and of CRI-O: a file of registries.conf.d.
// Source: https://github.com/containers/image/blob/main/docs/containers-registries.conf.5.md.
func Podman(o Options) (Output, error) {
	s, err := o.readFor(target{name: "registries.conf", pair: true, fallback: true, each: "entry"})
	if err != nil {
		return Output{}, err
	}
	var b strings.Builder
	b.WriteString("# Written by mirror setup.\n")
	for _, r := range s.Registries {
		at := s.host + "/" + r.Name
		if s.NoFallback {
			fmt.Fprintf(&b, "\n[[registry]]\nprefix = %s\nlocation = %s\ninsecure = %t\n", quote(r.Name), quote(at), s.plain())
			continue
		}
		location := r.Name
		if r.Server != "" {
			_, location, _ = strings.Cut(r.server(), "://")
		}
		fmt.Fprintf(&b, "\n[[registry]]\nprefix = %s\nlocation = %s\n", quote(r.Name), quote(location))
		if strings.HasPrefix(r.server(), "http://") {
			b.WriteString("insecure = true\n")
		}
		fmt.Fprintf(&b, "  [[registry.mirror]]\n  location = %s\n  insecure = %t\n", quote(at), s.plain())
	}
	out := Output{
		Files: []File{{Path: "/etc/containers/registries.conf.d/50-mirror.conf", Content: b.String()}},
		Notes: []string{
			"Podman and skopeo read it at each pull; CRI-O after systemctl reload crio.",
			"An image that is named without a registry is looked for in those of unqualified-search-registries.",
		},
	}
	if s.CA != "" {
		out.Notes = append(out.Notes, fmt.Sprintf("Copy %s to /etc/containers/certs.d/%s/ca.crt.", s.CA, s.host))
	}
	out.Notes = append(out.Notes, s.copyPair("/etc/containers/certs.d")...)
	if s.NoFallback {
		out.Notes = append(out.Notes, noWayAround)
	}
	return out, nil
}

// copyPair is what to do with the node's certificate for a client that looks for it in a folder of the mirror's host.
func (s *settings) copyPair(dir string) []string {
	if s.ClientCert == "" {
		return nil
	}
	return []string{fmt.Sprintf("Copy %s to %s/%s/client.cert, and %s to client.key beside it.", s.ClientCert, dir, s.host, s.ClientKey)}
}

// Docker is the configuration of dockerd: the daemon.json, which is about docker.io alone, and for its containerd image store
// (that of new installations since Docker 29) a hosts.toml of each other registry.
func Docker(o Options) (Output, error) {
	s, err := o.readFor(target{name: "Docker", headers: true, pair: true})
	if err != nil {
		return Output{}, err
	}
	daemon := struct {
		Mirrors []string `json:"registry-mirrors"`
	}{[]string{s.Mirror}}
	b, err := json.MarshalIndent(daemon, "", "  ")
	if err != nil {
		return Output{}, fmt.Errorf("write daemon.json: %w", err)
	}
	out := Output{
		Files: []File{{Path: "/etc/docker/daemon.json", Part: true, Content: string(b) + "\n"}},
		Notes: []string{
			"registry-mirrors is about docker.io alone: the mirror takes such requests for its defaultUpstream. Restart dockerd afterwards: " +
				"systemctl restart docker.",
			"The files below /etc/docker/certs.d count with the containerd image store alone (docker info says driver-type: " +
				"io.containerd.snapshotter.v1); with the old store other registries are pulled from directly.",
		},
	}
	if s.Node != "" || s.Authorization != "" {
		out.Notes = append(out.Notes, "Headers are sent by the containerd image store alone.")
	}
	for _, f := range s.folders("/etc/docker/certs.d") {
		if !strings.Contains(f.Path, "/_default/") {
			out.Files = append(out.Files, f)
		}
	}
	if s.CA != "" {
		out.Notes = append(out.Notes, fmt.Sprintf("Copy %s to /etc/docker/certs.d/%s/ca.crt.", s.CA, s.host))
	}
	out.Notes = append(out.Notes, s.copyPair("/etc/docker/certs.d")...)
	return out, nil
}

// buildkitTOML is a buildkitd.toml.
func (s *settings) buildkitTOML() string {
	var b strings.Builder
	for _, r := range s.Registries {
		fmt.Fprintf(&b, "[registry.%s]\n  mirrors = [%s]\n", quote(r.Name), quote(s.host))
		if strings.HasPrefix(r.server(), "http://") {
			b.WriteString("  http = true\n")
		}
	}
	fmt.Fprintf(&b, "[registry.%s]\n", quote(s.host))
	switch {
	case s.plain():
		b.WriteString("  http = true\n")
	case s.CA != "":
		fmt.Fprintf(&b, "  ca = [%s]\n", quote(s.CA))
	}
	if s.ClientCert != "" {
		fmt.Fprintf(&b, "  [[registry.%s.keypair]]\n    cert = %s\n    key = %s\n", quote(s.host), quote(s.ClientCert), quote(s.ClientKey))
	}
	return b.String()
}

// BuildKit is the configuration of buildkitd, in the forms in which builders of CI systems take it.
func BuildKit(o Options) (Output, error) {
	s, err := o.readFor(target{name: "BuildKit", pair: true, each: "entry"})
	if err != nil {
		return Output{}, err
	}
	toml := s.buildkitTOML()
	return Output{
		Files: []File{
			{Path: "/etc/buildkit/buildkitd.toml", Part: true, Content: toml},
			{Path: "step of a GitHub workflow", Part: true, Content: "- uses: docker/setup-buildx-action@v3\n  with:\n    buildkitd-config-inline: |\n" +
				indent(toml, "      ")},
			{Path: "ConfigMap for a builder in the cluster (Actions Runner Controller, GitLab runner, Tekton)", Content: "apiVersion: v1\n" +
				"kind: ConfigMap\nmetadata:\n  name: buildkitd\ndata:\n  buildkitd.toml: |\n" + indent(toml, "    ")},
		},
		Notes: []string{
			"docker buildx create --use --buildkitd-config /etc/buildkit/buildkitd.toml makes a builder that reads it.",
			"The builder of dockerd itself (driver docker) reads Docker's own settings instead: see mirror setup docker. In docker:dind give " +
				"dockerd the flag --registry-mirror=" + s.Mirror + ".",
			"Mount the ConfigMap into the builder's pod as /etc/buildkit; rootless builders read ~/.config/buildkit/buildkitd.toml.",
			"A builder in a pod reaches the mirror by the Service's name; one on a runner outside the cluster does not.",
		},
	}, nil
}

// Kaniko is the command line of kaniko.
func Kaniko(o Options) (Output, error) {
	s, err := o.readFor(target{name: "kaniko", pair: true, fallback: true, each: "flag"})
	if err != nil {
		return Output{}, err
	}
	var maps []string
	for _, r := range s.Registries {
		from := r.Name
		if from == "docker.io" {
			from = "index.docker.io" // the name that kaniko's library gives it
		}
		maps = append(maps, from+"="+s.host+"/"+r.Name)
	}
	flags := []string{"--registry-map=" + strings.Join(maps, ";")}
	if s.plain() {
		flags = append(flags, "--insecure-registry="+s.host)
	}
	if s.NoFallback {
		flags = append(flags, "--skip-default-registry-fallback")
	}
	if s.CA != "" {
		flags = append(flags, "--registry-certificate="+s.host+"="+s.CA)
	}
	if s.ClientCert != "" {
		flags = append(flags, "--registry-client-cert="+s.host+"="+s.ClientCert+","+s.ClientKey)
	}
	out := Output{Files: []File{{Path: "arguments of the executor", Part: true, Content: strings.Join(flags, "\n") + "\n"}}}
	out.Notes = []string{"Each line is one argument, as in the list args of a pod. In a shell put it between single quotes: ; would end the command there."}
	return out, nil
}

// Kind is the configuration of a cluster of kind, which has containerd in its nodes.
func Kind(o Options) (Output, error) {
	s, err := o.read()
	if err != nil {
		return Output{}, err
	}
	out := Output{Files: []File{{Path: "kind.yaml", Content: `kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
containerdConfigPatches: # kind 0.27 and later have it already
- |-
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = ` + quote(CertsDir) + `
nodes:
- role: control-plane
  extraMounts:
  - {hostPath: ./certs.d, containerPath: ` + CertsDir + `, readOnly: true}
`}}}
	for _, f := range s.folders("certs.d") {
		f.Path = path.Join(".", f.Path)
		out.Files = append(out.Files, f)
	}
	out.Notes = []string{
		"kind create cluster --config kind.yaml, in the folder of these files. Repeat extraMounts for each further node.",
		"The address must be one that the nodes reach: that of the host in kind's network, not 127.0.0.1, which is the node itself.",
		"For containerd 1.x, in the images of kind before 0.27, write io.containerd.grpc.v1.cri in the place of io.containerd.cri.v1.images.",
	}
	return out, nil
}

// K3s is the configuration of k3s: a registries.yaml, of which it makes hosts.toml files.
func K3s(o Options) (Output, error) { return rancher(o, "k3s") }

// RKE2 is that of RKE2, which reads the same file at a path of its own.
func RKE2(o Options) (Output, error) { return rancher(o, "rke2") }

func rancher(o Options, product string) (Output, error) {
	s, err := o.readFor(target{name: product, pair: true, fallback: true})
	if err != nil {
		return Output{}, err
	}
	var b strings.Builder
	b.WriteString("mirrors:\n")
	for _, name := range s.names() {
		fmt.Fprintf(&b, "  %s:\n    endpoint:\n    - %s\n", quote(name), quote(s.Mirror))
	}
	if s.CA != "" || s.ClientCert != "" {
		fmt.Fprintf(&b, "configs:\n  %s:\n    tls:\n", quote(s.host))
	}
	if s.CA != "" {
		fmt.Fprintf(&b, "      ca_file: %s\n", quote(s.CA))
	}
	if s.ClientCert != "" {
		fmt.Fprintf(&b, "      cert_file: %s\n      key_file: %s\n", quote(s.ClientCert), quote(s.ClientKey))
	}
	services := map[string]string{"k3s": "k3s (k3s-agent on agents)", "rke2": "rke2-server (rke2-agent on agents)"}
	out := Output{
		Files: []File{{Path: "/etc/rancher/" + product + "/registries.yaml", Part: true, Content: b.String()}},
		Notes: []string{"Restart " + services[product] + " afterwards: the file is read at the start alone."},
	}
	if s.Default {
		out.Notes = append(out.Notes, `"*" has been broken in some releases with containerd 2.x: name the registries that matter.`)
	}
	if s.NoFallback {
		out.Notes = append(out.Notes, "Give "+product+" the flag --disable-default-registry-endpoint: without it the registry itself comes last.", noWayAround)
	}
	return out, nil
}

// Talos is the configuration of Talos 1.12 and later, as documents.
func Talos(o Options) (Output, error) {
	s, err := o.readFor(target{name: "Talos", pair: true, fallback: true})
	if err != nil {
		return Output{}, err
	}
	var docs []string
	for _, name := range s.names() {
		docs = append(docs, fmt.Sprintf("apiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: %s\nendpoints:\n- url: %s\nskipFallback: %t\n",
			quote(name), quote(s.Mirror), s.NoFallback))
	}
	out := Output{
		Files: []File{{Path: "mirror.yaml", Content: strings.Join(docs, "---\n")}},
		Notes: []string{
			"talosctl patch machineconfig --patch @mirror.yaml --nodes NODES",
			"Talos pulls its own images (kubelet, etcd, installer) in the same way, before the cluster runs: without a fallback a mirror in the " +
				"cluster keeps the cluster from starting.",
			"Talos 1.11 and earlier have machine.registries.mirrors in place of these documents.",
		},
	}
	if s.CA != "" {
		out.Notes = append(out.Notes, "Add a document of kind RegistryTLSConfig with name: "+s.host+" and ca: the certificates themselves.")
	}
	if s.ClientCert != "" {
		out.Notes = append(out.Notes, "Add clientIdentity with cert and key, their content and not their paths, to the document RegistryTLSConfig of "+s.host+".")
	}
	return out, nil
}

// OpenShift is the configuration of an OpenShift cluster, whose nodes' files are the cluster's own: sets of mirrors.
func OpenShift(o Options) (Output, error) {
	s, err := o.readFor(target{name: "OpenShift", fallback: true, each: "entry"})
	if err != nil {
		return Output{}, err
	}
	policy := "AllowContactingSource"
	if s.NoFallback {
		policy = "NeverContactSource"
	}
	var docs []string
	for _, kind := range []struct{ name, list string }{
		{"ImageDigestMirrorSet", "imageDigestMirrors"}, {"ImageTagMirrorSet", "imageTagMirrors"},
	} {
		var b strings.Builder
		fmt.Fprintf(&b, "apiVersion: config.openshift.io/v1\nkind: %s\nmetadata:\n  name: mirror\nspec:\n  %s:\n", kind.name, kind.list)
		for _, r := range s.Registries {
			fmt.Fprintf(&b, "  - source: %s\n    mirrors:\n    - %s\n    mirrorSourcePolicy: %s\n", quote(r.Name), quote(s.host+"/"+r.Name), policy)
		}
		docs = append(docs, b.String())
	}
	out := Output{
		Files: []File{{Path: "mirror.yaml", Content: strings.Join(docs, "---\n")}},
		Notes: []string{"oc apply -f mirror.yaml: the nodes take it one after the other, without a restart of pods."},
	}
	switch {
	case s.plain():
		out.Notes = append(out.Notes, "A mirror at http:// is refused unless it is listed: oc patch image.config.openshift.io/cluster --type=merge -p "+
			`'{"spec":{"registrySources":{"insecureRegistries":[`+quote(s.host)+`]}}}'`)
	case s.CA != "":
		out.Notes = append(out.Notes, "Put the mirror's CA into a ConfigMap of openshift-config under the key "+strings.ReplaceAll(s.host, ":", "..")+
			", and name that in additionalTrustedCA of image.config.openshift.io/cluster.")
	}
	return out, nil
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+by) + "\n"
}
