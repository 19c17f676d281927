package diagnose_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/route"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/limit"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	hub    = "registry-1.docker.io:443"
	digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// hubError is an error of docker.io at one step.
func hubError(step fault.StepName, host string, change func(*fault.Error)) *fault.Error {
	e := &fault.Error{
		Op: "manifest", Upstream: "docker.io", Repository: "library/nginx", Reference: "1.27",
		Steps: []fault.Step{{Name: step, Host: host}},
	}
	if change != nil {
		change(e)
	}
	if e.Err != nil {
		e.Steps[0].Err = e.Err
	}
	e.Steps[0].Status = e.Status
	return e
}

func broke(step fault.StepName, host string, err error) error {
	return hubError(step, host, func(e *fault.Error) {
		e.Err = &url.Error{Op: "Get", URL: "https://" + host + "/v2/?X-Amz-Signature=secret", Err: err}
	})
}

func answered(status int, change func(*fault.Error)) error {
	return hubError(fault.StepManifest, hub, func(e *fault.Error) {
		e.Status = status
		if change != nil {
			change(e)
		}
	})
}

// ping is an error of docker.io at a step of a check without an image.
func ping(step fault.StepName, err error) error {
	return hubError(step, hub, func(e *fault.Error) {
		e.Repository, e.Reference = "", ""
		e.Steps[0].Endpoint, e.Steps[0].For = "https://registry-1.docker.io", fault.StepPing
		e.Err = dial(err)
	})
}

func of(name string, change func(*fault.Error)) func(*fault.Error) {
	return func(e *fault.Error) {
		e.Upstream, e.Repository, e.Reference, e.Steps[0].Host = name, "acme/app", "v1", name
		if change != nil {
			change(e)
		}
	}
}

// gone is the answer of a registry to a digest that it does not have.
func gone() error {
	return answered(404, func(e *fault.Error) { e.Reference, e.Code, e.BodyKind = digest, "MANIFEST_UNKNOWN", fault.BodyErrors })
}

// fixedTo is the error of a tag that may be served with one digest alone.
func fixedTo(h catalog.Hold, err error) error {
	return &pull.FixedError{
		Ref:    oci.Ref{Repo: oci.Repo{Host: "docker.io", Name: "library/nginx"}, Tag: "1.27"},
		Choice: catalog.Choice{Digest: digest, Latest: "sha256:bb", Hold: h}, Err: err,
	}
}

// mirrored is what a further mirror answers.
func mirrored(reason, message string) func(*fault.Error) {
	return func(e *fault.Error) { e.MirrorReason, e.Message, e.BodyKind = reason, message, fault.BodyErrors }
}

func credential(e *fault.Error, state string) {
	e.Credential.Name, e.Credential.Kind = "hub", "static"
	switch state {
	case "ok":
		e.Credential.State = "ok"
	case "expired":
		e.Credential.State, e.Credential.Expires = "expired", time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	case "rejected":
		e.Credential.State = "rejected"
	case "failing":
		e.Credential.State, e.Credential.LastError = "failing", "docker-credential-pass: exit status 1"
		e.Credential.Kind = "helper"
	}
}

func certificate(issuer string, from, to int) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: "registry"}, Issuer: pkix.Name{CommonName: issuer},
		DNSNames:  []string{"other.example"},
		NotBefore: time.Date(from, 1, 2, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(to, 1, 2, 0, 0, 0, 0, time.UTC),
	}
}

func unverified(cert *x509.Certificate, err error) error {
	return &tls.CertificateVerificationError{UnverifiedCertificates: []*x509.Certificate{cert}, Err: err}
}

func dial(err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 443}, Err: err}
}

type timeoutError struct{}

func (timeoutError) Error() string   { return "i/o timeout" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

var cases = []struct {
	name string
	want diagnose.Reason
	err  error
}{
	{"dns-nxdomain", diagnose.DNSNotFound, broke(fault.StepDNS, hub,
		dial(&net.DNSError{Err: "no such host", Name: "registry-1.docker.io", Server: "10.0.0.2:53", IsNotFound: true}))},
	{"dns-servfail", diagnose.DNSFailed, broke(fault.StepDNS, hub,
		dial(&net.DNSError{Err: "server misbehaving", Name: "registry-1.docker.io", IsTemporary: true}))},
	// A DNS timeout is a deadline too: it must not be taken for a slow upstream.
	{"dns-timeout", diagnose.DNSFailed, broke(fault.StepDNS, hub,
		dial(&net.DNSError{
			Err: "i/o timeout", Name: "registry-1.docker.io", Server: "10.0.0.2:53", IsTimeout: true,
			UnwrapErr: context.DeadlineExceeded,
		}))},
	{"refused", diagnose.ConnectRefused, broke(fault.StepDial, hub, dial(os.NewSyscallError("connect",
		syscall.ECONNREFUSED)))},
	{"refused-blob-host", diagnose.ConnectRefused, hubError(fault.StepBlobHost, "production.cloudflare.docker.com",
		func(e *fault.Error) {
			e.Op, e.Reference = "blob", digest
			e.Err = dial(os.NewSyscallError("connect", syscall.ECONNREFUSED))
		})},
	{"refused-dial-of-blob-host", diagnose.ConnectRefused, hubError(fault.StepDial, "production.cloudflare.docker.com",
		func(e *fault.Error) {
			e.Op, e.Reference = "blob", digest
			e.Steps[len(e.Steps)-1].For = fault.StepBlobHost
			e.Err = dial(os.NewSyscallError("connect", syscall.ECONNREFUSED))
		})},
	{"no-route", diagnose.Unreachable, broke(fault.StepDial, hub, dial(os.NewSyscallError("connect",
		syscall.EHOSTUNREACH)))},
	{"no-route-http", diagnose.Unreachable, hubError(fault.StepDial, "registry.corp:80", func(e *fault.Error) {
		e.Steps[0].Endpoint, e.Steps[0].For = "http://registry.corp", fault.StepManifest
		e.Err = dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH))
	})},
	{"no-route-http-blob-host", diagnose.Unreachable, hubError(fault.StepDial, "cdn.corp:443", func(e *fault.Error) {
		e.Op, e.Reference = "blob", digest
		e.Steps[0].Endpoint, e.Steps[0].For = "http://registry.corp", fault.StepBlobHost
		e.Err = dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH))
	})},
	{"no-route-ping", diagnose.Unreachable, ping(fault.StepDial, os.NewSyscallError("connect", syscall.EHOSTUNREACH))},
	{"reset-ping", diagnose.ConnectionReset, ping(fault.StepPing, os.NewSyscallError("read", syscall.ECONNRESET))},
	{"proxy-down-ping-http", diagnose.ProxyRefused, hubError(fault.StepProxy, "proxy.corp:3128", func(e *fault.Error) {
		e.Upstream, e.Repository, e.Reference = "registry.corp", "", ""
		e.Steps[0].Endpoint, e.Steps[0].For = "http://registry.corp", fault.StepPing
		e.Err = &net.OpError{Op: "proxyconnect", Net: "tcp", Err: dial(os.NewSyscallError("connect", syscall.ECONNREFUSED))}
	})},
	{"dial-timeout", diagnose.ConnectTimeout, broke(fault.StepDial, hub, dial(timeoutError{}))},
	{"proxy-407", diagnose.ProxyRefused, broke(fault.StepProxy, hub,
		&fault.ProxyError{Proxy: "me:pw@proxy.corp:3128", Status: 407})},
	{"proxy-403", diagnose.ProxyRefused, broke(fault.StepProxy, hub, &fault.ProxyError{
		Proxy:  "proxy.corp:3128",
		Status: 403,
	})},
	// A refused proxy is a refused connection too: it must not be taken for a refusing registry.
	{"proxy-down", diagnose.ProxyRefused, broke(fault.StepProxy, "proxy.corp:3128", &net.OpError{
		Op: "proxyconnect", Net: "tcp",
		Err: dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)),
	})},
	{"reset-at-manifest", diagnose.ConnectionReset, broke(fault.StepManifest, hub,
		&net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)})},
	{"short-body", diagnose.ConnectionReset, broke(fault.StepBody, hub, io.ErrUnexpectedEOF)},
	{"header-timeout", diagnose.UpstreamTimeout, broke(fault.StepManifest, hub, timeoutError{})},
	{"too-slow-for-a-client", diagnose.UpstreamTimeout, &pull.TimeoutError{
		Ref: oci.Ref{Repo: oci.Repo{Host: "docker.io", Name: "library/nginx"}, Tag: "1.27"}, Waited: 25 * time.Second,
	}},
	{"queue", diagnose.QueueTimeout, hubError(fault.StepQueue, hub, func(e *fault.Error) {
		e.Op, e.Reference = "blob", digest
		e.Err = &fault.QueueError{Endpoint: "https://" + hub, Most: 32, Waiting: 7, Waited: 24 * time.Second}
	})},
	{"stalled", diagnose.Stalled, broke(fault.StepBody, hub,
		&fault.ContentError{Kind: fault.ContentStalled, Want: "a byte in 30s", Got: "none"})},
	{"crawls", diagnose.Stalled, broke(fault.StepBody, hub,
		&fault.ContentError{Kind: fault.ContentSlow, Want: "61440 bytes in 1m0s", Got: "1200 bytes in 1m0s"})},
	{"redirect", diagnose.RedirectNotAllowed, broke(fault.StepBlobRegistry, hub,
		&fault.RedirectError{Host: "10.1.2.3", Why: "to a private address"})},
	{"redirect-to-http", diagnose.RedirectNotAllowed, broke(fault.StepBlobRegistry, hub,
		&fault.RedirectError{Host: "cdn.example", Why: "to http from https", Final: true})},
	{"redirect-loop", diagnose.RedirectNotAllowed, broke(fault.StepManifest, hub,
		&fault.RedirectError{Host: "registry-1.docker.io", Why: "more than 5 redirects", Final: true})},
	{"private-address", diagnose.RedirectNotAllowed, broke(fault.StepBlobHost, "cdn.example",
		&fault.AddressError{Host: "cdn.example", Addr: "169.254.169.254"})},

	{"untrusted", diagnose.TLSUntrusted, broke(fault.StepTLS, hub,
		unverified(certificate("corp-proxy", 2020, 2090), x509.UnknownAuthorityError{}))},
	{"wrong-name", diagnose.TLSWrongHost, broke(fault.StepTLS, hub, unverified(certificate("ca", 2020, 2090),
		x509.HostnameError{Certificate: certificate("ca", 2020, 2090), Host: "registry-1.docker.io"}))},
	{"expired-certificate", diagnose.TLSExpired, broke(fault.StepTLS, hub, unverified(certificate("ca", 2001, 2002),
		x509.CertificateInvalidError{Cert: certificate("ca", 2001, 2002), Reason: x509.Expired}))},
	{"not-yet-valid", diagnose.ClockSkew, broke(fault.StepTLS, hub, unverified(certificate("ca", 2090, 2091),
		x509.CertificateInvalidError{Cert: certificate("ca", 2090, 2091), Reason: x509.Expired}))},
	{"no-server-certificate", diagnose.TLSUntrusted, broke(fault.StepTLS, hub, unverified(certificate("ca", 2020, 2090),
		x509.CertificateInvalidError{Cert: certificate("ca", 2020, 2090), Reason: x509.IncompatibleUsage}))},
	{"http-answer", diagnose.HTTPNotHTTPS, broke(fault.StepTLS, hub, http.ErrSchemeMismatch)},
	{"http-record", diagnose.HTTPNotHTTPS, broke(fault.StepTLS, hub,
		tls.RecordHeaderError{Msg: "first record", RecordHeader: [5]byte([]byte("HTTP/"))})},
	{"smtp-record", diagnose.TLSHandshake, broke(fault.StepTLS, hub,
		tls.RecordHeaderError{Msg: "first record", RecordHeader: [5]byte([]byte("220 s"))})},
	{"tls-alert", diagnose.TLSHandshake, broke(fault.StepTLS, hub,
		&net.OpError{Op: "remote error", Err: tls.AlertError(40)})},
	// Only the step separates a connection closed at the first packet of TLS from one closed later.
	{"reset-at-tls", diagnose.TLSHandshake, broke(fault.StepTLS, hub,
		&net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)})},
	{"silent-at-tls", diagnose.TLSHandshake, broke(fault.StepTLS, hub, timeoutError{})},
	{"https-port-go", diagnose.HTTPSNotHTTP, answered(400, func(e *fault.Error) {
		e.BodyKind, e.Message = fault.BodyText, "Client sent an HTTP request to an HTTPS server."
	})},
	{"https-port-nginx", diagnose.HTTPSNotHTTP, answered(400, func(e *fault.Error) {
		e.BodyKind, e.Message = fault.BodyHTML, "400 The plain HTTP request was sent to HTTPS port"
	})},

	{"hub-private-or-missing", diagnose.NotFoundOrNoAccess, answered(401, func(e *fault.Error) {
		e.Code, e.Message, e.BodyKind = "UNAUTHORIZED", "authentication required", fault.BodyErrors
		e.Challenge = `Bearer realm="https://auth.docker.io/token",error="insufficient_scope"`
	})},
	{"hub-private-or-missing-under-access-public", diagnose.NotFoundOrNoAccess, answered(401, func(e *fault.Error) {
		e.Code, e.Message, e.BodyKind = "UNAUTHORIZED", "authentication required", fault.BodyErrors
		e.Challenge, e.PublicOnly = `Bearer realm="https://auth.docker.io/token",error="insufficient_scope"`, true
	})},
	{"hub-private-or-missing-with-credential", diagnose.NotFoundOrNoAccess, answered(401, func(e *fault.Error) {
		e.Code, e.Message, e.BodyKind = "UNAUTHORIZED", "authentication required", fault.BodyErrors
		e.Challenge = `Bearer realm="https://auth.docker.io/token",error="insufficient_scope"`
		credential(e, "ok")
	})},
	{"hub-wrong-password", diagnose.CredentialsRejected, hubError(fault.StepToken, "auth.docker.io",
		func(e *fault.Error) {
			e.Status, e.Message, e.BodyKind = 401, "incorrect username or password", fault.BodyDetails
			credential(e, "ok")
		})},
	{"hub-expired-token", diagnose.CredentialsExpired, hubError(fault.StepToken, "auth.docker.io",
		func(e *fault.Error) {
			e.Status, e.Message, e.BodyKind = 401, "personal access token is expired", fault.BodyDetails
			credential(e, "ok")
		})},
	{"hub-bad-name", diagnose.TokenServiceRefused, hubError(fault.StepToken, "auth.docker.io", func(e *fault.Error) {
		e.Status, e.Message, e.BodyKind = 400, "invalid repository name", fault.BodyDetails
	})},
	{"credential-known-to-be-expired", diagnose.CredentialsExpired, answered(401, func(e *fault.Error) {
		credential(e, "expired")
	})},
	{"credential-known-to-be-rejected", diagnose.CredentialsRejected, answered(403,
		func(e *fault.Error) { credential(e, "rejected") })},
	{"credential-source-down", diagnose.CredentialSourceFailed, hubError(fault.StepToken, "auth.docker.io",
		func(e *fault.Error) {
			e.Err = errors.New("exec: docker-credential-pass")
			credential(e, "failing")
		})},
	{"ghcr-private-or-missing", diagnose.NotFoundOrNoAccess, hubError(fault.StepToken, "", of("ghcr.io",
		func(e *fault.Error) {
			e.Status, e.Code, e.Message = 403, "DENIED", "requested access to the resource is denied"
		}))},
	{"ghcr-with-credential", diagnose.NotFoundOrNoAccess, hubError(fault.StepToken, "", of("ghcr.io",
		func(e *fault.Error) {
			e.Status, e.Code, e.Message = 403, "DENIED", "denied"
			credential(e, "ok")
		}))},
	{"ghcr-no-right", diagnose.UpstreamForbidden, answered(403, of("ghcr.io", func(e *fault.Error) {
		e.Code, e.Message = "DENIED", "permission_denied: read_package"
		credential(e, "ok")
	}))},
	{"ecr-anonymous", diagnose.CredentialsMissing, answered(401, of("123456789012.dkr.ecr.eu-west-1.amazonaws.com",
		func(e *fault.Error) {
			e.Message, e.BodyKind = "Not Authorized", fault.BodyText
			e.Challenge = `Basic realm="https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com"`
		}))},
	{"ecr-expired", diagnose.CredentialsExpired, answered(403, of("123456789012.dkr.ecr.eu-west-1.amazonaws.com",
		func(e *fault.Error) {
			e.Code, e.Message = "DENIED", "Your authorization token has expired. Reauthenticate and try again."
			credential(e, "ok")
		}))},
	{"ecr-policy", diagnose.UpstreamForbidden, answered(403, of("123456789012.dkr.ecr.eu-west-1.amazonaws.com",
		func(e *fault.Error) {
			e.Code, e.Message = "DENIED", "User: arn:aws:iam::1:role/x is not authorized to perform: ecr:BatchGetImage"
			credential(e, "ok")
		}))},
	{"ecr-wrong-password", diagnose.CredentialsRejected, answered(401, of("123456789012.dkr.ecr.eu-west-1.amazonaws.com",
		func(e *fault.Error) {
			e.Challenge = `Basic realm="https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/"`
			credential(e, "ok")
		}))},
	{"public-ecr-bad-token", diagnose.CredentialsRejected, answered(400, of("public.ecr.aws", func(e *fault.Error) {
		e.Code, e.Message = "DENIED", "Your Authorization Token is invalid."
		credential(e, "ok")
	}))},
	{"gar-with-credential", diagnose.NotFoundOrNoAccess, answered(403, of("europe-docker.pkg.dev",
		func(e *fault.Error) {
			e.Code, e.Message = "DENIED", `Permission "artifactregistry.downloadArtifacts" denied (or it may not exist)`
			credential(e, "ok")
		}))},
	{"gcr-without-words", diagnose.NotFoundOrNoAccess, answered(403, of("eu.gcr.io",
		func(e *fault.Error) { credential(e, "ok") }))},
	{"redhat-login", diagnose.CredentialsMissing, hubError(fault.StepToken, "", of("registry.redhat.io",
		func(e *fault.Error) {
			e.Status, e.Code = 401, "UNAUTHORIZED"
			e.Message = "Please login to the Red Hat Registry using your Customer Portal credentials."
		}))},
	{"acr-firewall", diagnose.UpstreamBlocked, hubError(fault.StepPing, "", of("acme.azurecr.io",
		func(e *fault.Error) {
			e.Status, e.Code, e.Message = 403, "DENIED", "client with IP '192.0.2.1' is not allowed access."
		}))},
	{"realm", diagnose.AuthHostNotAllowed, broke(fault.StepToken, hub, &fault.RealmError{
		Host:   "evil.example",
		Scheme: "https",
	})},

	{"realm-over-http", diagnose.AuthHostNotAllowed, broke(fault.StepToken, hub, &fault.RealmError{
		Host: "harbor.example", Scheme: "http", Plain: true,
	})},
	{"realm-malformed", diagnose.AuthHostNotAllowed, broke(fault.StepToken, hub, &fault.RealmError{
		Host: "harbor.example", Scheme: "null", Malformed: "null://harbor.example/service/token",
	})},
	{"vanity-host", diagnose.AuthHostNotAllowed, hubError(fault.StepManifest, "ghcr.io", of("images.example", func(e *fault.Error) {
		e.Status, e.Err = 401, &fault.AwayError{From: "images.example", To: "ghcr.io", Realm: "ghcr.io"}
	}))},
	{"vanity-host-with-a-password", diagnose.AuthHostNotAllowed, hubError(fault.StepManifest, "reg.example", of("images.example",
		func(e *fault.Error) {
			e.Status, e.Err = 401, &fault.AwayError{From: "images.example", To: "reg.example"}
		}))},
	{"signed-schema-1", diagnose.UnsupportedImage, broke(fault.StepManifest, hub, &oci.ManifestError{Fault: oci.FaultSigned, Detail: "x"})},
	{"list-that-is-too-long", diagnose.BadRequest, hubError(fault.StepList, "quay.io", of("quay.io", func(e *fault.Error) {
		e.Op, e.Reference, e.Status, e.Message = "tags", "", 413, "Requested page size must be at most 100"
	}))},
	{"next-page", diagnose.UpstreamError, hubError(fault.StepList, "quay.io", of("quay.io", func(e *fault.Error) {
		e.Op, e.Reference, e.Err = "tags", "", &fault.ContentError{Kind: fault.ContentNextPage, Want: "x", Got: "<%zz>; rel=next"}
	}))},
	{"packed", diagnose.UpstreamError, broke(fault.StepManifest, hub, &fault.ContentError{
		Kind: fault.ContentEncoding, Want: "identity", Got: "gzip",
	})},
	{"limited-for-a-second", diagnose.RateLimited, answered(429, func(e *fault.Error) { e.RetryAfter = time.Second })},

	{"tag-unknown", diagnose.TagNotFound, answered(404, func(e *fault.Error) { e.Code = "MANIFEST_UNKNOWN" })},
	{"tag-unknown-head", diagnose.TagNotFound, answered(404, nil)},
	{"tag-expired", diagnose.TagNotFound, answered(404, func(e *fault.Error) {
		e.Code, e.Message = "TAG_EXPIRED",
			"Tag has expired"
	})},
	{"tag-gone", diagnose.TagNotFound, answered(410, nil)},
	{"repository-unknown", diagnose.RepositoryNotFound, answered(404,
		func(e *fault.Error) { e.Code = "NAME_UNKNOWN" })},
	{"repository-unknown-tags", diagnose.RepositoryNotFound, answered(404, func(e *fault.Error) {
		e.Op, e.Reference = "tags", ""
	})},
	{"repository-gone-tags", diagnose.RepositoryNotFound, answered(410, func(e *fault.Error) {
		e.Op, e.Reference, e.Code = "tags", "", "TAG_EXPIRED"
	})},
	{"digest-unknown", diagnose.DigestNotFound, answered(404, func(e *fault.Error) {
		e.Code, e.Reference = "MANIFEST_UNKNOWN", digest
	})},
	{"blob-unknown", diagnose.DigestNotFound, answered(404, func(e *fault.Error) {
		e.Op, e.Code, e.Reference = "blob", "BLOB_UNKNOWN", digest
	})},

	{"hub-pull-limit", diagnose.RateLimited, answered(429, func(e *fault.Error) {
		e.Code, e.BodyKind = "TOOMANYREQUESTS", fault.BodyErrors
		e.Message = "You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"
	})},
	{"hub-pull-limit-of-a-credential", diagnose.RateLimited, answered(429, func(e *fault.Error) {
		e.Code, e.BodyKind, e.RetryAfter = "TOOMANYREQUESTS", fault.BodyErrors, 90*time.Second
		credential(e, "ok")
	})},
	{"hub-nothing-left", diagnose.RateLimited, answered(429, func(e *fault.Error) {
		at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		e.Budget = &limit.Budget{Limit: 100, Window: 6 * time.Hour, Source: "192.0.2.1", At: at}
		e.RetryAfter = 6*time.Hour - 90*time.Second
		e.Steps = []fault.Step{{Name: fault.StepManifest, Host: "registry-1.docker.io", Err: fault.ErrNotAsked}}
	})},
	{"hub-spent-here", diagnose.RateLimited, answered(429, func(e *fault.Error) {
		at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		e.Budget = &limit.Budget{Limit: 100, Window: 6 * time.Hour, At: at, Spent: limit.Spent{
			Since: at.Add(-6 * time.Hour), Requests: 91, Elsewhere: 9,
			By: []limit.Use{{Repository: "library/nginx", Requests: 60}, {Repository: "library/redis", Requests: 20}, {Repository: "acme/app", Requests: 6}, {Repository: "acme/base", Requests: 5}},
		}}
		e.RetryAfter = 6 * time.Hour
	})},
	{"hub-spent-elsewhere", diagnose.RateLimited, answered(429, func(e *fault.Error) {
		at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		e.Budget = &limit.Budget{Limit: 100, Window: 6 * time.Hour, Source: "192.0.2.1", At: at, Spent: limit.Spent{
			Since: at.Add(-6 * time.Hour), Requests: 3, By: []limit.Use{{Repository: "library/nginx", Requests: 3}}, Elsewhere: 97,
		}}
		e.RetryAfter = 6 * time.Hour
	})},
	{"hub-account-spent-elsewhere", diagnose.RateLimited, answered(429, func(e *fault.Error) {
		at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		credential(e, "ok")
		e.Budget = &limit.Budget{Credential: e.Credential.Name, Limit: 200, Window: 6 * time.Hour, At: at, Spent: limit.Spent{
			Since: at.Add(-6 * time.Hour), Elsewhere: 200,
		}}
		e.RetryAfter = 6 * time.Hour
	})},
	{"ecr-like-nothing-left-until", diagnose.RateLimited, answered(429, of("reg.example", func(e *fault.Error) {
		at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		e.Budget = &limit.Budget{Limit: -1, Reset: at.Add(time.Minute), At: at}
		e.RetryAfter = time.Minute
	}))},
	{"hub-abuse", diagnose.AbuseLimited, answered(429, func(e *fault.Error) {
		e.BodyKind, e.Message, e.RetryAfter = fault.BodyText, "Too Many Requests (HAP429).", time.Minute
	})},
	{"mcr-text-limit", diagnose.RateLimited, answered(429, of("mcr.microsoft.com", func(e *fault.Error) {
		e.BodyKind, e.Message = fault.BodyText, "Ref A: 1 Ref B: 2"
	}))},
	{"ecr-data-limit", diagnose.DataLimited, answered(429, of("public.ecr.aws", func(e *fault.Error) {
		e.Code, e.Message = "TOOMANYREQUESTS", "Data limit exceeded"
	}))},

	{"503", diagnose.UpstreamError, answered(503, nil)},
	{"503-with-words", diagnose.UpstreamError, answered(503, func(e *fault.Error) {
		e.Code, e.Message, e.BodyKind = "UNAVAILABLE", "storage is being moved until 10 h", fault.BodyErrors
	})},
	{"503-with-a-page", diagnose.UpstreamError, answered(503, func(e *fault.Error) {
		e.Message, e.BodyKind = "503 Service Temporarily Unavailable", fault.BodyHTML
	})},
	{"endpoint-is-the-mirror", diagnose.Loop, answered(502, func(e *fault.Error) { e.MirrorReason = "loop" })},
	{"another-mirror", diagnose.UpstreamError, answered(502, func(e *fault.Error) { e.MirrorReason = "dns-failed" })},
	{"another-mirror-has-a-limit", diagnose.UpstreamError, answered(503, mirrored("rate-limited",
		"docker.io limits anonymous pulls from the mirror's address, and the limit is reached; wait [1a2b3c4d]"))},
	{"another-mirror-lacks-the-registry", diagnose.UpstreamBlocked, answered(404, mirrored("unknown-upstream",
		"the mirror has no upstream named docker.io; add docker.io to upstreams in the mirror's configuration [1a2b3c4d]"))},
	{"another-mirror-has-no-rule", diagnose.UpstreamBlocked, answered(403, mirrored("client-forbidden",
		"the mirror has no rule that lets clients pull docker.io/library/nginx; add a rule for it [1a2b3c4d]"))},
	{"another-mirror-to-a-head", diagnose.UpstreamBlocked, answered(403, func(e *fault.Error) { e.MirrorReason = "blocked-by-policy" })},
	{"another-mirror-wants-a-login", diagnose.CredentialsMissing, answered(401, mirrored("client-forbidden", "log in"))},
	{"another-mirror-rejects-a-login", diagnose.CredentialsRejected, answered(401, func(e *fault.Error) {
		mirrored("login-refused", "the mirror does not accept this token; log in to the mirror again [1a2b3c4d]")(e)
		credential(e, "ok")
	})},
	{"another-mirror-says-the-tag-is-missing", diagnose.TagNotFound, answered(404, mirrored("tag-not-found", "docker.io has no library/nginx:1.27"))},
	{"another-mirror-may-not-know", diagnose.NotFoundOrNoAccess, answered(403, mirrored("not-found-or-no-access", "private or missing"))},
	{"a-mirror-of-another-version", diagnose.TagNotFound, answered(404, mirrored("of-a-later-version", "not today"))},
	{"503-token", diagnose.UpstreamError, hubError(fault.StepToken, "auth.docker.io",
		func(e *fault.Error) { e.Status = 503 })},
	{"quay-disabled", diagnose.UpstreamBlocked, answered(405, of("quay.io", func(e *fault.Error) {
		e.Code, e.Message = "DENIED", "This namespace is disabled. Please contact your system administrator."
	}))},
	{"harbor-policy", diagnose.UpstreamBlocked, answered(412, of("harbor.corp", func(e *fault.Error) {
		e.Code, e.Message = "PROJECTPOLICYVIOLATION", "current image with 4 vulnerabilities cannot be pulled"
	}))},
	{"304", diagnose.UpstreamError, answered(304, nil)},
	{"waf-page", diagnose.UpstreamBlocked, answered(403, func(e *fault.Error) {
		e.BodyKind, e.Message = fault.BodyHTML, "Request blocked by corp-proxy"
	})},
	{"waf-page-401", diagnose.UpstreamBlocked, answered(401, func(e *fault.Error) {
		e.BodyKind, e.Message = fault.BodyHTML, "Sign in to the network"
	})},
	// nginx in front of a registry with a password: the answer is a page, but its challenge counts.
	{"nginx-basic", diagnose.CredentialsMissing, answered(401, of("registry.corp", func(e *fault.Error) {
		e.BodyKind, e.Message = fault.BodyHTML, "401 Authorization Required"
		e.Challenge = `Basic realm="registry"`
	}))},
	{"waf-page-with-credential", diagnose.UpstreamBlocked, answered(403, func(e *fault.Error) {
		e.BodyKind, e.Message = fault.BodyHTML, "Request blocked by corp-proxy"
		credential(e, "ok")
	})},
	{"legal", diagnose.UpstreamBlocked, answered(451, nil)},
	{"blob-host-403", diagnose.UpstreamBlocked, hubError(fault.StepBlobHost, "production.cloudflare.docker.com",
		func(e *fault.Error) {
			e.Op, e.Reference, e.Status, e.BodyKind = "blob", digest, 403, fault.BodyHTML
		})},
	{"blob-host-xml", diagnose.UpstreamBlocked, hubError(fault.StepBlobHost, "bucket.s3.amazonaws.com",
		func(e *fault.Error) {
			e.Op, e.Reference, e.Status, e.BodyKind, e.Code = "blob", digest, 403, fault.BodyXML, "AccessDenied"
		})},
	{"web-page", diagnose.NotARegistry, broke(fault.StepManifest, hub,
		&fault.ContentError{Kind: fault.ContentNotRegistry, Want: "a manifest", Got: "a web page \"Welcome\""})},
	{"token-service-page", diagnose.NotARegistry, broke(fault.StepToken, "auth.docker.io",
		&fault.ContentError{Kind: fault.ContentNotRegistry, Want: "JSON with a token", Got: "a web page, 63 bytes"})},
	{"list-too-large", diagnose.UpstreamError, hubError(fault.StepManifest, hub, func(e *fault.Error) {
		e.Op, e.Reference = "tags", ""
		e.Err = &fault.ContentError{Kind: fault.ContentTooLarge, Want: "at most 1 byte", Got: "more"}
	})},
	// Without its source the mirror asks anonymously; an unreachable host has another cause.
	{"credential-source-down-and-refused", diagnose.ConnectRefused, hubError(fault.StepDial, hub,
		func(e *fault.Error) {
			e.Err = dial(os.NewSyscallError("connect", syscall.ECONNREFUSED))
			credential(e, "failing")
		})},
	{"credential-source-down-and-401", diagnose.CredentialSourceFailed, answered(401,
		func(e *fault.Error) { credential(e, "failing") })},
	{"manifest-5-mib", diagnose.ManifestTooLarge, broke(fault.StepManifest, hub,
		&fault.ContentError{Kind: fault.ContentTooLarge, Want: "at most 4194304 bytes", Got: "5242880"})},
	{"manifest-not-one", diagnose.UnsupportedImage, broke(fault.StepManifest, hub,
		&fault.ContentError{Kind: fault.ContentNotManifest, Want: "a manifest", Got: "text"})},
	{"manifest-ambiguous", diagnose.UnsupportedImage, broke(fault.StepManifest, hub,
		&oci.ManifestError{Fault: oci.FaultAmbiguous, Detail: `it has both "manifests" and "layers"`})},
	{"manifest-too-large-by-oci", diagnose.ManifestTooLarge, broke(fault.StepManifest, hub,
		&oci.ManifestError{Fault: oci.FaultTooLarge, Detail: "it has 5242880 bytes, at most 4194304 are allowed"})},
	{"wrong-digest", diagnose.DigestMismatch, broke(fault.StepManifest, hub,
		&fault.ContentError{Kind: fault.ContentDigest, Want: digest, Got: "sha256:00"})},
	{"no-size", diagnose.UpstreamError, hubError(fault.StepBlobRegistry, hub, func(e *fault.Error) {
		e.Op, e.Reference, e.Status = "blob", digest, 200
		e.Err = &fault.ContentError{Kind: fault.ContentLength, Want: "a size", Got: "none"}
	})},
	{"status-204", diagnose.NotARegistry, broke(fault.StepManifest, hub,
		&fault.ContentError{Kind: fault.ContentNotRegistry, Want: "status 200", Got: "status 204"})},
	{"wrong-range", diagnose.UpstreamError, broke(fault.StepBlobHost, "cdn.example",
		&fault.ContentError{Kind: fault.ContentRange, Want: "bytes 5-9/10", Got: "bytes 0-9/10"})},
	{"flight-digest", diagnose.DigestMismatch, &flight.MismatchError{
		Digest: digest, Got: "sha256:0000000000000000000000000000000000000000000000000000000000000000",
		Size: 10, GotSize: 10, Host: "cdn.example",
	}},
	{"flight-size", diagnose.DigestMismatch, &flight.MismatchError{
		Digest: digest, Size: 10, GotSize: 12,
		Host: "cdn.example",
	}},
	{"claimed-size", diagnose.UnsupportedImage, hubError(fault.StepBlobRegistry, hub, func(e *fault.Error) {
		e.Op, e.Reference = "blob", digest
		e.Err = fault.WrongClaim(777, 5)
	})},
	{"claimed-size-of-the-only-endpoint", diagnose.UnsupportedImage, &pull.ClaimError{
		Ref: oci.Ref{Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Digest: digest}, Claim: 10, Size: 12, Host: "cdn.example",
		Err: &flight.MismatchError{Digest: digest, Size: 10, GotSize: 12, Host: "cdn.example"},
	}},
	{"image-of-no-manifests", diagnose.UnsupportedImage, fmt.Errorf("survey: %w", &pull.ImageError{
		Ref: oci.Ref{Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Digest: digest}, Detail: "its index has no manifests",
	})},
	{"unheard-of", diagnose.UpstreamError, broke(fault.StepManifest, hub, errors.New("http2: server sent GOAWAY"))},

	{"unknown-upstream", diagnose.UnknownUpstream, &route.UnknownError{
		Key: "evil.example", Via: route.ViaNamespace,
		Have: []string{"docker.io", "ghcr.io"},
	}},
	{"client-forbidden", diagnose.ClientForbidden, &access.ForbiddenError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Mirrored: true,
	}},
	{"client-forbidden-here", diagnose.ClientForbidden, &access.ForbiddenError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"},
	}},
	{"client-forbidden-user", diagnose.ClientForbidden, &access.ForbiddenError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Who: "alice",
	}},
	{"client-forbidden-node", diagnose.ClientForbidden, &access.ForbiddenError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Who: "node:worker-1", Mirrored: true, Note: "the certificate has expired",
	}},
	{"client-forbidden-account", diagnose.ClientForbidden, &access.ForbiddenError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Who: "sa:builds/kaniko", Logins: true,
	}},
	{"client-forbidden-without-a-login", diagnose.ClientForbidden, &access.ForbiddenError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Logins: true, Certificates: true,
	}},
	{"client-forbidden-without-a-certificate", diagnose.ClientForbidden, &access.ForbiddenError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Certificates: true,
	}},
	{"client-forbidden-node-without-a-login", diagnose.ClientForbidden, &access.ForbiddenError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Mirrored: true, Logins: true,
	}},
	{"client-forbidden-node-without-a-certificate", diagnose.ClientForbidden, &access.ForbiddenError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Mirrored: true, Logins: true, Certificates: true,
	}},
	{"client-forbidden-node-with-a-wrong-login", diagnose.ClientForbidden, &access.ForbiddenError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Mirrored: true, Logins: true, Note: "login by token: refused",
	}},
	{"login-refused-account", diagnose.LoginRefused, &identity.RefusedError{
		Method: identity.ByAccount, Result: identity.Refused, Detail: "the token is not for the audience mirror",
	}},
	{"login-refused-account-expired", diagnose.LoginRefused, &identity.RefusedError{
		Method: identity.ByAccount, Result: identity.Refused, Detail: identity.TokenExpired,
	}},
	{"login-limited-account", diagnose.LoginRefused, &identity.RefusedError{Method: identity.ByAccount, Result: identity.Limited}},
	{"client-login-missing", diagnose.ClientLoginMissing, &access.LoginError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Mirrored: true,
	}},
	{"client-login-missing-here", diagnose.ClientLoginMissing, &access.LoginError{Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}}},
	{"client-login-unusable", diagnose.ClientLoginMissing, &access.LoginError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Mirrored: true, Unusable: true,
	}},
	{"client-login-of-a-user-of-the-mirror", diagnose.ClientLoginMissing, &access.LoginError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Mirrored: true, Who: "ci",
	}},
	{"client-login-of-an-account-at-the-mirror", diagnose.ClientLoginMissing, &access.LoginError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Who: "sa:builds/kaniko",
	}},
	{"client-login-of-a-node", diagnose.ClientLoginMissing, &access.LoginError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Mirrored: true, Who: "node:worker-1",
	}},
	{"client-login-in-clear", diagnose.ClientLoginMissing, &access.LoginError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Mirrored: true, Insecure: true,
	}},
	{"client-login-of-the-mirror", diagnose.ClientLoginMissing, &access.LoginError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Background: true,
	}},
	{"client-login-refused", diagnose.ClientLoginRefused, &access.RefusedError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Mirrored: true,
	}},
	{"client-login-refused-before", diagnose.ClientLoginRefused, &access.RefusedError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Remembered: true,
	}},
	{"login-refused", diagnose.LoginRefused, &identity.RefusedError{Method: identity.ByPassword, Result: identity.Refused}},
	{"login-refused-user", diagnose.LoginRefused, &identity.RefusedError{Method: identity.ByPassword, Result: identity.Refused, User: "ci"}},
	{"login-refused-unknown-token", diagnose.LoginRefused, &identity.RefusedError{Method: identity.ByToken, Result: identity.Refused, User: "ci"}},
	{"login-refused-bearer", diagnose.LoginRefused, &identity.RefusedError{Method: identity.ByToken, Result: identity.Refused}},
	{"login-refused-secret-as-the-user", diagnose.LoginRefused, &identity.RefusedError{
		Method: identity.ByToken, Result: identity.Refused, User: "glpat-0123456789abcdefghij",
	}},
	{"login-refused-token", diagnose.LoginRefused, &identity.RefusedError{
		Method: identity.ByToken, Result: identity.Refused, User: "ci", Detail: identity.TokenExpired,
	}},
	{"login-refused-beside-another-name", diagnose.LoginRefused, &identity.RefusedError{
		Method: identity.ByToken, Result: identity.Refused, User: "oauth2", Detail: identity.TokenOfAnother,
	}},
	{"login-refused-beside-a-long-name", diagnose.LoginRefused, &identity.RefusedError{
		Method: identity.ByToken, Result: identity.Refused, Detail: identity.TokenOfAnother,
	}},
	{"login-refused-with-a-line-end", diagnose.LoginRefused, &identity.RefusedError{
		Method: identity.ByPassword, Result: identity.Refused, Detail: identity.SpaceAtEnd,
	}},
	{"login-limited", diagnose.LoginRefused, &identity.RefusedError{Method: identity.ByPassword, Result: identity.Limited, User: "alice"}},
	{"login-unavailable", diagnose.LoginRefused, &identity.RefusedError{
		Method: identity.ByAccount, Result: identity.Unavailable, Err: errors.New("dial tcp 10.0.0.1:443: connection refused"),
	}},
	{"blocked-by-policy", diagnose.BlockedByPolicy, &access.BlockedError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme-internal/app"}, Setting: "deny", Glob: "acme-internal/**", Mirrored: true,
	}},
	{"blocked-by-policy-only", diagnose.BlockedByPolicy, &access.BlockedError{
		Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Setting: "only",
	}},
	{"too-new", diagnose.TooNew, &pull.HeldError{
		Ref: oci.Ref{Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Tag: "v1"}, Latest: digest, MinAge: 24 * time.Hour,
		Until: time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC),
	}},
	{"pinned-to-a-digest-that-is-gone", diagnose.DigestNotFound, fixedTo(catalog.HeldByPin, gone())},
	{"pinned-and-down", diagnose.UpstreamError, fixedTo(catalog.HeldByPin, answered(503, nil))},
	{"immutable-and-its-digest-is-gone", diagnose.DigestNotFound, fixedTo(catalog.HeldByImmutable, gone())},
	{"held-and-down", diagnose.UpstreamError, fixedTo(catalog.HeldByMinAge, answered(503, nil))},
	{"bad-name", diagnose.BadRequest, errcode.ErrorCodeNameInvalid.WithMessage(`name "A" is not valid; correct it`)},
	{"loop", diagnose.Loop, diagnose.New(diagnose.Loop, "the mirror's own request came back", "correct the endpoints")},
	{"stopping", diagnose.Stopping, flight.ErrClosed},
	{"client-limited", diagnose.ClientLimited, diagnose.New(diagnose.ClientLimited,
		"the client has as many requests at once as it may have, 64, and this one waited 10s",
		"pull fewer images at once, or raise clients.limits.maxRequests of the mirror")},
	{"client-gone", diagnose.ClientGone, context.Canceled},
	{"bug", diagnose.InternalError, errors.New("catalog: page\r\nX-Evil: 1 https://u:p@h/x?token=secret")},
}

func TestExplain(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	for _, c := range cases {
		f := diagnose.Explain(fmt.Errorf("pull: %w", c.err))
		if f.Reason != c.want {
			t.Errorf("%s: reason %s, want %s", c.name, f.Reason, c.want)
		}
		fmt.Fprintf(&got, "# %s\n%s (%s)", c.name, f.Reason, f.Class)
		if f.Declined {
			got.WriteString(", declined")
		}
		fmt.Fprintf(&got, "\n%s\n", f.Summary)
		if f.Short != "" {
			fmt.Fprintf(&got, "~ %s\n", f.Short)
		}
		fmt.Fprintf(&got, "-> %s\n", f.Remedy)
		image := imageOf(c.err)
		fmt.Fprintf(&got, "   image=%s id=%s\n", image, f.ID(image))
		fmt.Fprintf(&got, "   upstream=%s host=%s stage=%s status=%d", f.Upstream, f.Host, f.Stage, f.Status)
		if f.RetryAfter > 0 {
			fmt.Fprintf(&got, " retry-after=%s", f.RetryAfter)
		}
		got.WriteByte('\n')
		for _, e := range f.Evidence {
			fmt.Fprintf(&got, "   %s\n", e)
		}
		got.WriteByte('\n')
	}
	golden(t, "explain.golden", got.String())
}

// imageOf is the image of a failure's id, as the front end has it: without tag or digest for a blob or a list.
func imageOf(err error) string {
	if e, ok := errors.AsType[*fault.Error](err); ok {
		ref := oci.Ref{Repo: oci.Repo{Host: e.Upstream, Name: e.Repository}}
		switch {
		case e.Op != "manifest":
		case strings.Contains(e.Reference, ":"):
			ref.Digest = oci.Digest(e.Reference)
		default:
			ref.Tag = e.Reference
		}
		return ref.String()
	}
	if e, ok := errors.AsType[*pull.TimeoutError](err); ok {
		return e.Ref.String()
	}
	if e, ok := errors.AsType[*access.ForbiddenError](err); ok {
		return e.Repo.String() + ":1"
	}
	if e, ok := errors.AsType[*route.UnknownError](err); ok && e.Via != route.ViaDefault {
		return e.Key + "/acme/app:1"
	}
	return "docker.io/library/nginx:1.27"
}

// Every finding must be fit to be shown, whatever came from the network.
func TestExplainIsPresentable(t *testing.T) {
	t.Parallel()
	for _, c := range cases {
		f := diagnose.Explain(c.err)
		if f.Class != f.Reason.Class() || f.Class == diagnose.ClassUnknown {
			t.Errorf("%s: class %q of reason %q", c.name, f.Class, f.Reason)
		}
		if f.Summary == "" || f.Remedy == "" {
			t.Errorf("%s: summary %q, remedy %q: both are needed", c.name, f.Summary, f.Remedy)
		}
		for _, text := range append([]string{f.Summary, f.Remedy}, f.Evidence...) {
			if strings.ContainsAny(text, "\r\n\t\x00") || strings.Contains(text, "secret") || strings.Contains(text, "pw@") {
				t.Errorf("%s: %q must not be shown", c.name, text)
			}
		}
	}
}

func TestEveryReasonHasACase(t *testing.T) {
	t.Parallel()
	have := map[diagnose.Reason]bool{diagnose.Overloaded: true} // made by the front end alone
	for _, c := range cases {
		have[c.want] = true
	}
	for _, r := range diagnose.Reasons() {
		if !have[r] && r.Origin() == diagnose.InRequest {
			t.Errorf("reason %s has no case", r)
		}
	}
}

func TestExplainNil(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff(diagnose.Finding{}, diagnose.Explain(nil)); diff != "" {
		t.Error(diff)
	}
}

func TestID(t *testing.T) {
	t.Parallel()
	f := diagnose.Finding{Reason: diagnose.RateLimited, Host: "docker.io", Summary: "a"}
	id := f.ID("docker.io/library/nginx:1.27")
	// A constant: ids are quoted, and must be the same in the next release.
	if id != "69dcaf4b" {
		t.Errorf("id %s", id)
	}
	other := f
	other.Summary, other.Evidence = "b", []string{"c"}
	if got := other.ID("docker.io/library/nginx:1.27"); got != id {
		t.Errorf("id changed with the words: %s", got)
	}
	for name, got := range map[string]string{
		"image":  f.ID("docker.io/library/nginx:1.28"),
		"reason": diagnose.Finding{Reason: diagnose.AbuseLimited, Host: "docker.io"}.ID("docker.io/library/nginx:1.27"),
		"host":   diagnose.Finding{Reason: diagnose.RateLimited, Host: "quay.io"}.ID("docker.io/library/nginx:1.27"),
	} {
		if got == id {
			t.Errorf("id is the same for another %s", name)
		}
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, want string }{
		"plain":      {"a b", "a b"},
		"lines":      {"a\r\nX-Evil: 1\tb\x00c", "a X-Evil: 1 bc"},
		"query":      {`Get "https://h/p?X-Amz-Signature=abc&b=c": refused`, `Get "https://h/p": refused`},
		"commas":     {"see https://h/p?a=b,secret)", "see https://h/p)"},
		"user":       {"proxy http://u:p@proxy:3128/ down", "proxy http://proxy:3128/ down"},
		"password":   {"proxy u:p@proxy:3128 answered", "proxy proxy:3128 answered"},
		"digest":     {"nginx:1.27@sha256:abc", "nginx:1.27@sha256:abc"},
		"fragment":   {"https://h/#token", "https://h/"},
		"path":       {"/v2/x?ns=y", "/v2/x"},
		"question":   {"missing or private?", "missing or private?"},
		"separators": {"a\u2028b\u00a0c", "a b c"},
	} {
		if got := diagnose.Clean(c.in); got != c.want {
			t.Errorf("%s: Clean(%q) = %q, want %q", name, c.in, got, c.want)
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run with -update to write it)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got); -update rewrites it:\n%s", name, diff)
	}
}
