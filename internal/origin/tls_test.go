package origin_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"testing"

	"github.com/registrymirror/mirror/internal/origin"
)

func TestCertificates(t *testing.T) {
	t.Parallel()
	reason := func(want x509.InvalidReason) func(error) bool {
		return func(err error) bool {
			e, ok := errors.AsType[x509.CertificateInvalidError](err)
			return ok && e.Reason == want
		}
	}
	for _, tt := range []struct {
		name string
		cert origin.Certificate
		is   func(error) bool
	}{
		{"expired", origin.Certificate{Expired: true}, reason(x509.Expired)},
		{"not yet", origin.Certificate{NotYet: true}, reason(x509.Expired)},
		{"wrong name", origin.Certificate{WrongName: true}, func(err error) bool {
			_, ok := errors.AsType[x509.HostnameError](err)
			return ok
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := origin.Start(t, origin.Options{TLS: true, Certificate: tt.cert})
			if _, err := ask(t, client(t, o, false), http.MethodGet, o.URL()+"/v2/"); !tt.is(err) {
				t.Errorf("err = %v", err)
			}
		})
	}
	t.Run("unknown authority", func(t *testing.T) {
		t.Parallel()
		o, other := origin.Start(t, origin.Options{TLS: true}), origin.Start(t, origin.Options{TLS: true})
		_, err := ask(t, client(t, other, false), http.MethodGet, o.URL()+"/v2/")
		if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
			t.Errorf("err = %v", err)
		}
	})
	t.Run("issuer", func(t *testing.T) {
		t.Parallel()
		o := origin.Start(t, origin.Options{TLS: true, Certificate: origin.Certificate{Issuer: "corp-proxy"}})
		block, _ := pem.Decode(o.CAPEM())
		ca, err := x509.ParseCertificate(block.Bytes)
		if err != nil || ca.Subject.CommonName != "corp-proxy" {
			t.Errorf("%v, %v", ca.Subject, err)
		}
		if resp, err := ask(t, client(t, o, false), http.MethodGet, o.URL()+"/v2/"); err != nil || resp.StatusCode != 200 {
			t.Errorf("%v, %v", resp, err)
		}
	})
	t.Run("plain HTTP has none", func(t *testing.T) {
		t.Parallel()
		if o := origin.Start(t, origin.Options{}); o.CA() != nil || o.CAPEM() != nil {
			t.Error("a CA without TLS")
		}
	})
}
