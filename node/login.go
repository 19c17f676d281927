package node

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/registrymirror/mirror/internal/regular"
	"github.com/registrymirror/mirror/internal/text"
)

// LoginError says why the login of a node does not count at its mirror: for each image that needs one, the node goes past it.
type LoginError struct{ Reason string }

func (e *LoginError) Error() string { return "login refused: " + e.Reason }

// Question is how an agent asks its mirror, with what the node's files have: the same login, the same certificates. Files are read for each
// question, since they are renewed.
type Question struct {
	Mirror                string // its URL
	CA                    string // path; empty: the certificates of the system count
	ClientCert, ClientKey string // paths; empty: the node shows no certificate
	Authorization         string // value of the header; empty: it is not sent
}

// Ready is an AgentOptions.Ready: it asks whether the mirror serves. It needs no login, and shows none.
func (q Question) Ready(ctx context.Context) error {
	q.ClientCert = "" // a certificate that can't be read is not the mirror's fault
	t, err := q.transport()
	if err != nil {
		return err
	}
	_, err = ask(ctx, t, q.Mirror)
	return err
}

// Login is an AgentOptions.Login: it asks which client the mirror takes this node for.
func (q Question) Login(ctx context.Context) error {
	t, err := q.transport()
	if err != nil {
		return &LoginError{err.Error()}
	}
	_, err = askIdentity(ctx, t, q.Mirror, q.Authorization)
	return err
}

func (q Question) transport() (*http.Transport, error) {
	var pem [][]byte
	if q.CA != "" {
		b, err := regular.Read(q.CA, maxFile)
		if err != nil {
			return nil, fmt.Errorf("read the mirror's CA: %w", err)
		}
		pem = append(pem, b)
	}
	t, err := transport(pem, false)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", q.CA, err)
	}
	if q.ClientCert == "" {
		return t, nil
	}
	pair, err := readPair(func(name string) ([]byte, error) { return regular.Read(name, maxFile) }, [2]string{q.ClientCert, q.ClientKey})
	if err != nil {
		return nil, err
	}
	t.TLSClientConfig.Certificates = append(t.TLSClientConfig.Certificates, pair)
	return t, nil
}

// readPair reads a certificate and its key. An empty second path means that the first file has both.
func readPair(read func(string) ([]byte, error), paths [2]string) (tls.Certificate, error) {
	cert, err := read(paths[0])
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("read the certificate of this node: %w", err)
	}
	key := cert
	if paths[1] != "" {
		if key, err = read(paths[1]); err != nil {
			return tls.Certificate{}, fmt.Errorf("read the key of this node's certificate: %w", err)
		}
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%w: %w", errPair, err)
	}
	return pair, nil
}

// errPair says that a certificate and its key can't be used together.
var errPair = errors.New("the certificate of this node and its key are not a pair in PEM")

// askIdentity asks a mirror which client it takes the sender of such requests for; empty: an anonymous one. An empty authorization is not sent.
// The error is a *LoginError if the login does not count, and errNoIdentity if the mirror is of a version that does not say.
func askIdentity(ctx context.Context, t *http.Transport, mirror, authorization string) (identity string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	at, err := url.JoinPath(mirror, "identity")
	if err != nil {
		return "", fmt.Errorf("the mirror's address: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return "", fmt.Errorf("ask the mirror for this node's identity: %w", err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := t.RoundTrip(req) // no redirect is followed
	if err != nil {
		return "", fmt.Errorf("ask the mirror for this node's identity: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusNotFound {
		return "", errNoIdentity
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return "", fmt.Errorf("read which identity this node has: %w", err)
	}
	var answer struct{ Identity, Refused string }
	if resp.StatusCode != http.StatusOK || json.Unmarshal(b, &answer) != nil {
		return "", fmt.Errorf("ask the mirror for this node's identity: it answers %s", text.Line(resp.Status, 100))
	}
	if answer.Identity == "" && answer.Refused != "" {
		return "", &LoginError{text.Line(answer.Refused, 300)}
	}
	return text.Line(answer.Identity, 300), nil
}

// errNoIdentity says that a mirror is of a version that does not tell identities.
var errNoIdentity = errors.New("the mirror does not tell which identity this node has: it is of an earlier version")
