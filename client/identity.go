package client

import "strings"

// Identity is what a client has shown of itself: the name of a user, node:NAME, or sa:NAMESPACE/NAME for a service account of
// Kubernetes. Empty: it has shown nothing, and is anonymous. The name of a user has no colon.
type Identity string

const (
	nodePrefix    = "node:"
	accountPrefix = "sa:"
)

// Node is the identity of a node with a certificate.
func Node(name string) Identity { return Identity(nodePrefix + name) }

// ServiceAccount is the identity of a client with a token of a service account.
func ServiceAccount(namespace, name string) Identity {
	return Identity(accountPrefix + namespace + "/" + name)
}

// Kind is the kind of an identity, "user", "node" or "sa", with the name in it. An anonymous client has neither.
func (i Identity) Kind() (kind, name string) {
	switch kind, name, found := strings.Cut(string(i), ":"); {
	case i == "":
		return "", ""
	case found:
		return kind, name
	}
	return "user", string(i)
}

// IsByLogin reports whether it is that of a user or a service account: clients show these by a login, and nodes by a certificate.
func (i Identity) IsByLogin() bool {
	kind, _ := i.Kind()
	return kind == "user" || kind == "sa"
}

// Label is the name of the client in logs and records: that of a node as it is, so that its pods are found by it, and that of a user
// so that it is not taken for a node.
func (i Identity) Label() string {
	switch kind, name := i.Kind(); kind {
	case "node":
		return name
	case "user":
		return "user:" + name
	}
	return string(i)
}
