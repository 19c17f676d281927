package diagnose

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/upstream/fault"
)

func (c *draft) dns() {
	e, ok := errors.AsType[*net.DNSError](c.err)
	if !ok {
		return
	}
	host, server := cmp.Or(e.Name, c.host), "the mirror's DNS"
	if e.Server != "" {
		server = "DNS server " + e.Server
	}
	c.f.Host = host
	switch {
	case e.IsNotFound:
		c.set(DNSNotFound, "there is no host %s in DNS, needed for %s", host, c.full())
		c.remedy("check the name of the endpoint of %s, and %s", c.up, server)
	case e.IsTimeout:
		c.set(DNSFailed, "%s did not answer for %s, needed for %s", server, host, c.full())
		c.remedy("let the mirror reach its DNS server")
	default:
		c.set(DNSFailed, "%s could not resolve %s, needed for %s", server, host, c.full())
		c.remedy("check the DNS server that the mirror uses")
	}
}

func (c *draft) proxy() {
	if e, ok := errors.AsType[*fault.ProxyError](c.err); ok {
		proxy := e.Proxy[strings.LastIndexByte(e.Proxy, '@')+1:]
		target := strings.TrimSuffix(cmp.Or(e.Target, c.host), ":443")
		c.set(ProxyRefused, "proxy %s answered %d to a connection to %s for %s", proxy, e.Status, target, c.full())
		if e.Status == http.StatusProxyAuthRequired {
			c.remedy("put its user and password into HTTPS_PROXY, or into proxy of the endpoint")
		} else {
			c.remedy("allow %s on the proxy, or add it to NO_PROXY", target)
		}
		return
	}
	e, ok := errors.AsType[*net.OpError](c.err)
	if !ok || e.Op != "proxyconnect" {
		return
	}
	c.set(ProxyRefused, "proxy %s can't be reached for %s: %s", c.host, c.full(), innermost(e.Err))
	c.remedy("check %s and NO_PROXY of the mirror, and that the proxy runs", c.proxyVariable())
}

func (c *draft) certificate() {
	var cert *x509.Certificate
	if e, ok := errors.AsType[*tls.CertificateVerificationError](c.err); ok && len(e.UnverifiedCertificates) > 0 {
		cert = e.UnverifiedCertificates[0]
		c.note("certificate of %s: subject %s, issuer %s, valid %s to %s", c.host, cmp.Or(cert.Subject.String(), "none"),
			cmp.Or(cert.Issuer.String(), "none"), day(cert.NotBefore), day(cert.NotAfter))
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](c.err); ok {
		if cert == nil {
			cert = e.Cert
		}
		c.set(TLSUntrusted, "certificate of %s is issued by %s, which the mirror doesn't trust", c.at(), issuer(cert))
		c.f.Short = fmt.Sprintf("certificate of %s is issued by %s, which isn't trusted", c.host, issuer(cert))
		c.remedy("add that CA as ca to its endpoint, in the mirror's configuration")
		return
	}
	if e, ok := errors.AsType[x509.HostnameError](c.err); ok {
		c.set(TLSWrongHost, "certificate of %s is for %s, not for %s", c.at(), names(e.Certificate), e.Host)
		c.remedy("correct the endpoint of %s, whose name must be one of the certificate's", c.up)
		return
	}
	e, ok := errors.AsType[x509.CertificateInvalidError](c.err)
	if !ok {
		if _, isTLS := errors.AsType[*tls.CertificateVerificationError](c.err); isTLS {
			c.set(TLSUntrusted, "certificate of %s, issued by %s, can't be verified", c.at(), issuer(cert))
			c.remedy("check the certificate of %s; a CA of your own goes to ca of the endpoint", c.host)
			return
		}
		return
	}
	bad := cmp.Or(e.Cert, cert)
	switch {
	case e.Reason == x509.Expired && bad != nil && time.Now().Before(bad.NotBefore):
		c.set(ClockSkew, "certificate of %s is valid only from %s on", c.at(), day(bad.NotBefore))
		c.remedy("check the clock of the mirror's machine, then that of the certificate's issuer")
	case e.Reason == x509.Expired && bad != nil:
		c.set(TLSExpired, "certificate of %s, or of a CA above it, expired on %s", c.at(), day(bad.NotAfter))
		c.remedy("renew the certificate of %s; check the clock of the mirror's machine", c.host)
	case e.Reason == x509.Expired:
		c.set(TLSExpired, "certificate of %s has expired", c.at())
		c.remedy("renew the certificate of %s; check the clock of the mirror's machine", c.host)
	default:
		c.set(TLSUntrusted, "certificate of %s, issued by %s, is not valid for a server", c.at(), issuer(bad))
		c.remedy("issue the certificate of %s anew", c.host)
	}
}

func (c *draft) handshake() {
	record, noTLS := errors.AsType[tls.RecordHeaderError](c.err)
	_, alert := errors.AsType[tls.AlertError](c.err)
	if e, ok := errors.AsType[*net.OpError](c.err); ok && e.Op == "remote error" {
		alert = true
	}
	switch {
	case errors.Is(c.err, http.ErrSchemeMismatch), noTLS && string(record.RecordHeader[:]) == "HTTP/":
		c.set(HTTPNotHTTPS, "%s answered HTTP on an https endpoint", c.at())
		c.remedy("write the endpoint with http://, or fix TLS on %s", c.host)
	case noTLS:
		c.note("its first bytes: %q", record.RecordHeader[:])
		c.set(TLSHandshake, "%s doesn't speak TLS", c.at())
		c.remedy("check host and port of the endpoint of %s", c.up)
	case alert:
		c.set(TLSHandshake, "%s ended the TLS handshake: %s", c.at(), innermost(c.err))
		c.remedy("check which TLS versions and client certificate %s wants", c.host)
	case c.step.Name == fault.StepTLS && c.step.Err != nil:
		// Closed or silent at the first packet of TLS, after TCP had succeeded: so does a filter on server names.
		how := "closed the connection in"
		if timedOut(c.err) {
			how = "did not finish"
		}
		c.set(TLSHandshake, "%s %s the TLS handshake", c.at(), how)
		c.remedy("check whether a firewall filters that name")
	}
}

func (c *draft) connection() {
	firewall := "allow the mirror to reach " + c.host + " in the firewall, or set " + c.proxyVariable()
	switch {
	case errors.Is(c.err, syscall.ECONNREFUSED):
		c.set(ConnectRefused, "%s refused the connection for %s", c.where(), c.full())
		c.remedy("check that %s runs, and the port of the endpoint of %s", c.host, c.up)
		if c.atBlobHost() {
			c.remedy("%s", firewall)
		}
	case errors.Is(c.err, syscall.EHOSTUNREACH), errors.Is(c.err, syscall.ENETUNREACH),
		errors.Is(c.err, syscall.EHOSTDOWN), errors.Is(c.err, syscall.ENETDOWN),
		errors.Is(c.err, syscall.EADDRNOTAVAIL):
		c.set(Unreachable, "the mirror has no route to %s for %s", c.where(), c.full())
		c.remedy("%s", firewall)
	case c.dialing() && timedOut(c.err), errors.Is(c.err, syscall.ETIMEDOUT) && c.dialing():
		c.set(ConnectTimeout, "%s did not accept a connection for %s", c.where(), c.full())
		c.remedy("%s", firewall)
	}
	if c.f.Reason != "" && c.atBlobHost() {
		c.note("%s itself answered; only %s, where it keeps its blobs, did not", c.up, c.host)
	}
}

func (c *draft) timeout() {
	if e, ok := errors.AsType[*pull.TimeoutError](c.err); ok {
		c.set(UpstreamTimeout, "%s did not answer for %s within %s", c.up, c.what(), e.Waited.Round(time.Second))
	} else if timedOut(c.err) {
		c.set(UpstreamTimeout, "%s did not answer in time for %s", c.host, c.full())
	} else {
		return
	}
	c.remedy("%s; if it stays check %s and the network on the way to it", c.again(), c.host)
}

func (c *draft) broken() {
	if !errors.Is(c.err, syscall.ECONNRESET) && !errors.Is(c.err, syscall.EPIPE) &&
		!errors.Is(c.err, io.ErrUnexpectedEOF) && !errors.Is(c.err, io.EOF) {
		return
	}
	while := "sending"
	if c.isPing() {
		while = "answering"
	}
	c.set(ConnectionReset, "%s broke the connection while %s %s", c.host, while, c.full())
	c.remedy("%s; if it stays check proxies and firewalls on the way to %s", c.again(), c.host)
}

func timedOut(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// innermost is the text of the error at the bottom of a chain.
func innermost(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

func issuer(cert *x509.Certificate) string {
	if cert == nil {
		return "an unknown CA"
	}
	if cert.Issuer.String() == cert.Subject.String() {
		return "itself"
	}
	if cn := cert.Issuer.CommonName; cn != "" {
		return "CN=" + cn
	}
	return cmp.Or(cert.Issuer.String(), "a CA without a name")
}

func names(cert *x509.Certificate) string {
	if cert == nil {
		return "other names"
	}
	all := append([]string(nil), cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		all = append(all, ip.String())
	}
	switch {
	case len(all) == 0:
		return "no host name"
	case len(all) > 3:
		return strings.Join(all[:3], ", ") + " and others"
	}
	return strings.Join(all, ", ")
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
