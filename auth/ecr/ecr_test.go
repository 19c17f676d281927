package ecr_test

import (
	"bytes"
	"crypto/hmac"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/auth/ecr"
	"github.com/registrymirror/mirror/auth/internal/standin"
	"github.com/registrymirror/mirror/internal/clouds"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// These must not be in any error, log or state.
const (
	secretKey     = "canary-secret-key-3c1f"
	sessionToken  = "canary/session+token=9d"
	identityToken = "canary.web.identity-77"
	podToken      = "canary-pod-token-51"
	metadataToken = "canary-metadata-token-e0"
	password      = "canary-password-4b"
)

var canaries = []string{secretKey, sessionToken, identityToken, podToken, metadataToken, password}

func clean(t *testing.T, what string, v any) {
	t.Helper()
	text := fmt.Sprintf("%+v", v)
	for _, c := range canaries {
		if strings.Contains(text, c) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte("AWS:"+c))) {
			t.Errorf("%s shows a secret: %s", what, text)
		}
	}
}

const (
	host   = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	accKey = "AKIDEXAMPLE"
)

// aws stands in for STS, ECR, ECR public, and the endpoints of containers and instances. It checks its requests as
// AWS does.
type aws struct {
	t       *testing.T
	token   string // of the session that requests must be signed in; empty: none
	region  string
	service string
	skew    time.Duration
	life    time.Duration
	absent  bool // no role
}

func (s *aws) now() time.Time { return time.Now().Add(s.skew) }

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": "com.amazonaws.ecr#" + code, "message": message})
}

func (s *aws) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Error(err)
	}
	keys := map[string]string{
		"Code": "Success", "AccessKeyId": accKey, "SecretAccessKey": secretKey, "Token": sessionToken,
		"Expiration": s.now().Add(time.Hour).UTC().Format(time.RFC3339),
	}
	switch {
	case r.Header.Get("X-Amz-Target") != "":
		s.authorization(w, r, body)
	case strings.HasPrefix(string(body), "Action="):
		s.assume(w, r, body)
	case r.URL.Path == "/v1/credentials":
		if r.Header.Get("Authorization") != podToken {
			refuse(w, 401, "AccessDenied", "bad token "+r.Header.Get("Authorization"))
			return
		}
		delete(keys, "Code")
		_ = json.NewEncoder(w).Encode(keys)
	case r.URL.Path == "/latest/api/token":
		if r.Method != http.MethodPut || r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") == "" {
			http.Error(w, "", http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, metadataToken)
	case r.Header.Get("X-Aws-Ec2-Metadata-Token") != metadataToken: // version 1 is off
		http.Error(w, "", http.StatusUnauthorized)
	case s.absent:
		http.NotFound(w, r)
	case r.URL.Path == "/latest/meta-data/iam/security-credentials/":
		_, _ = io.WriteString(w, "node-role")
	case r.URL.Path == "/latest/meta-data/iam/security-credentials/node-role":
		_ = json.NewEncoder(w).Encode(keys)
	default:
		http.NotFound(w, r)
	}
}

func (s *aws) assume(w http.ResponseWriter, r *http.Request, body []byte) {
	r.Body = io.NopCloser(bytes.NewReader(body))
	if r.FormValue("Action") != "AssumeRoleWithWebIdentity" || r.FormValue("Version") != "2011-06-15" ||
		r.FormValue("RoleArn") != "arn:aws:iam::123456789012:role/mirror" || r.FormValue("RoleSessionName") == "" ||
		r.Header.Get("Authorization") != "" || r.FormValue("WebIdentityToken") != identityToken {
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprintf(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>`+
			`<Code>InvalidIdentityToken</Code><Message>the token %s is not valid</Message></Error></ErrorResponse>`,
			r.FormValue("WebIdentityToken"))
		return
	}
	w.Header().Set("Content-Type", "text/xml")
	_, _ = fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">`+
		`<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey>`+
		`<SessionToken>%s</SessionToken><Expiration>2026-01-01T00:00:00Z</Expiration></Credentials>`+
		`</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, accKey, secretKey, sessionToken)
}

// authorization checks the signature as AWS does: scope, clock, session, and the bytes.
func (s *aws) authorization(w http.ResponseWriter, r *http.Request, body []byte) {
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		s.t.Errorf("X-Amz-Date %q", r.Header.Get("X-Amz-Date"))
	}
	got := r.Header.Get("Authorization")
	switch {
	case at.Sub(s.now()).Abs() > 5*time.Minute:
		refuse(w, 400, "InvalidSignatureException", "Signature expired: "+r.Header.Get("X-Amz-Date")+" is now earlier than ...")
		return
	case r.Header.Get("X-Amz-Security-Token") != s.token:
		refuse(w, 400, "UnrecognizedClientException", "The security token "+r.Header.Get("X-Amz-Security-Token")+" is invalid.")
		return
	}
	again := r.Clone(r.Context())
	_, list, _ := strings.Cut(got, "SignedHeaders=")
	list, _, _ = strings.Cut(list, ",")
	again.Header = http.Header{}
	for name := range strings.SplitSeq(list, ";") {
		if name != "host" {
			again.Header[http.CanonicalHeaderKey(name)] = r.Header[http.CanonicalHeaderKey(name)]
		}
	}
	ecr.Sign(again, body, accKey, secretKey, s.token, s.region, s.service, at)
	if !hmac.Equal([]byte(again.Header.Get("Authorization")), []byte(got)) || !strings.Contains(list, "x-amz-target") {
		refuse(w, 403, "SignatureDoesNotMatch", "The Canonical String should have been ... x-amz-security-token:"+
			r.Header.Get("X-Amz-Security-Token"))
		return
	}
	data := map[string]any{
		"authorizationToken": base64.StdEncoding.EncodeToString([]byte("AWS:" + password)),
		"expiresAt":          float64(s.now().Add(s.life).UnixMilli()) / 1000,
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	switch target := r.Header.Get("X-Amz-Target"); {
	case target == "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken" && s.service == "ecr":
		_ = json.NewEncoder(w).Encode(map[string]any{"authorizationData": []any{data}})
	case target == "SpencerFrontendService.GetAuthorizationToken" && s.service == "ecr-public":
		_ = json.NewEncoder(w).Encode(map[string]any{"authorizationData": data})
	default:
		refuse(w, 400, "UnknownOperationException", target)
	}
}

func tokenFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func envOf(m map[string]string) func(string) string { return func(k string) string { return m[k] } }

func private(t *testing.T) *aws {
	return &aws{t: t, token: sessionToken, region: "eu-west-1", service: "ecr", life: 12 * time.Hour}
}

// Each way to keys, over loopback.
func TestKeys(t *testing.T) {
	t.Parallel()
	static := map[string]string{"AWS_ACCESS_KEY_ID": accKey, "AWS_SECRET_ACCESS_KEY": secretKey}
	identity := tokenFile(t, identityToken+"\n")
	pod := tokenFile(t, podToken)
	for _, tt := range []struct {
		name, host string
		env        map[string]string // URL stands for the stand-in
		change     func(*aws)
		asked      string
		err        string
	}{
		{name: "environment", env: static, change: func(s *aws) { s.token = "" }, asked: "POST /"},
		{
			name:  "environment with a session",
			env:   map[string]string{"AWS_ACCESS_KEY_ID": accKey, "AWS_SECRET_ACCESS_KEY": secretKey, "AWS_SESSION_TOKEN": sessionToken},
			asked: "POST /",
		},
		{
			name: "public", host: "public.ecr.aws", env: static, asked: "POST /",
			change: func(s *aws) { s.token, s.region, s.service = "", "us-east-1", "ecr-public" },
		},
		{
			name: "web identity", asked: "POST /,POST /",
			env: map[string]string{
				"AWS_WEB_IDENTITY_TOKEN_FILE": identity, "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/mirror",
			},
		},
		{
			name: "pod identity", asked: "GET /v1/credentials,POST /",
			env: map[string]string{
				"AWS_CONTAINER_CREDENTIALS_FULL_URI": "URL/v1/credentials", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": pod,
			},
		},
		{
			name: "instance",
			asked: "PUT /latest/api/token,GET /latest/meta-data/iam/security-credentials/," +
				"GET /latest/meta-data/iam/security-credentials/node-role,POST /",
		},
		{
			name: "web identity that is refused", err: "403 InvalidIdentityToken: the token *** is not valid",
			env: map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": identity, "AWS_ROLE_ARN": "arn:other"}, asked: "POST /",
		},
		{
			name: "pod identity that is refused", err: "401 AccessDenied: bad token ***", asked: "GET /v1/credentials",
			env: map[string]string{
				"AWS_CONTAINER_CREDENTIALS_FULL_URI": "URL/v1/credentials", "AWS_CONTAINER_AUTHORIZATION_TOKEN": podToken + "x",
			},
		},
		{
			name: "instance without a role", change: func(s *aws) { s.absent = true },
			asked: "PUT /latest/api/token,GET /latest/meta-data/iam/security-credentials/", err: "no AWS credentials: give the mirror's",
		},
		{
			name: "nothing", env: map[string]string{"AWS_EC2_METADATA_DISABLED": "true"},
			err: "no AWS credentials: give the mirror's service account or instance a role",
		},
		{
			name: "no token file", err: "AWS_WEB_IDENTITY_TOKEN_FILE: open /nowhere/token",
			env: map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere/token", "AWS_ROLE_ARN": "x"},
		},
		{
			name: "container's endpoint elsewhere", err: "is neither https nor an address of this machine",
			env: map[string]string{
				"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://evil.example/x", "AWS_CONTAINER_AUTHORIZATION_TOKEN": podToken,
			},
		},
		{
			name: "wrong key", asked: "POST /", err: "403 SignatureDoesNotMatch: The Canonical String should have been ... x-amz-security-token:***",
			env: map[string]string{"AWS_ACCESS_KEY_ID": accKey, "AWS_SECRET_ACCESS_KEY": secretKey + "x", "AWS_SESSION_TOKEN": sessionToken},
		},
		{
			name: "expired session", asked: "POST /", err: "400 UnrecognizedClientException: The security token *** is invalid.",
			env: map[string]string{"AWS_ACCESS_KEY_ID": accKey, "AWS_SECRET_ACCESS_KEY": secretKey, "AWS_SESSION_TOKEN": sessionToken + "old"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := private(t)
			if tt.change != nil {
				tt.change(s)
			}
			service := &standin.Service{Handler: s}
			server := httptest.NewServer(service)
			defer server.Close()
			env := map[string]string{
				"AWS_ENDPOINT_URL_ECR": server.URL, "AWS_ENDPOINT_URL_STS": server.URL + "/", "AWS_ENDPOINT_URL_ECR_PUBLIC": server.URL,
				"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.URL,
			}
			for k, v := range tt.env {
				env[k] = strings.ReplaceAll(v, "URL/", server.URL+"/")
			}
			h := host
			if tt.host != "" {
				h = tt.host
			}
			var log bytes.Buffer
			src, err := ecr.New(ecr.Options{Host: h, Env: envOf(env)},
				auth.Refresh{Name: "aws", Log: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			c, err := src.Credential(t.Context())
			clean(t, "error", err)
			clean(t, "log", log.String())
			clean(t, "state", src.Status())
			if got := strings.Join(service.Asked(), ","); got != tt.asked {
				t.Errorf("asked %s, want %s", got, tt.asked)
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.Username != "AWS" || c.Password.Reveal() != password || c.Name != "aws" {
				t.Errorf("%s %s %q", c.Name, c.Username, c.Password.Reveal())
			}
			if left := time.Until(c.Expires); left < 12*time.Hour-time.Minute || left > 12*time.Hour+time.Second {
				t.Errorf("expires in %s, want 12h", left)
			}
			if st := src.Status(); st.State != auth.StateOK || st.Kind != "ecr" || st.For != h {
				t.Errorf("status %+v", st)
			}
		})
	}
}

// A machine whose clock is hours off logs in, and knows by its own clock when the login ends.
func TestClockSkew(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{-3 * time.Hour, 7 * time.Minute, 40 * 24 * time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := private(t)
				s.skew, s.token = skew, ""
				service := &standin.Service{Handler: s, Skew: skew}
				var log bytes.Buffer
				src := source(t, service, &log)
				c, err := src.Credential(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if left := time.Until(c.Expires); (left - 12*time.Hour).Abs() > 2*time.Second {
					t.Errorf("expires in %s by our clock, want 12h", left)
				}
				if !strings.Contains(log.String(), "local clock differs from AWS's") || len(service.Asked()) != 2 {
					t.Errorf("asked %q, log:\n%s", service.Asked(), &log)
				}
			})
		})
	}
}

func source(t *testing.T, service *standin.Service, log io.Writer) *auth.Refreshed {
	t.Helper()
	src, err := ecr.New(ecr.Options{
		Host: host, Transport: service,
		Env: envOf(map[string]string{"AWS_ACCESS_KEY_ID": accKey, "AWS_SECRET_ACCESS_KEY": secretKey}),
	}, auth.Refresh{Name: "aws", Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func TestFaults(t *testing.T) {
	l := standin.Login{
		Host: "api.ecr.eu-west-1.amazonaws.com", Header: http.Header{"Content-Type": {"application/x-amz-json-1.1"}},
		Limit: 8 * time.Second, Secret: secretKey, Clean: clean,
		Try: func(t *testing.T, service *standin.Service) (bool, any, error) {
			s := private(t)
			s.token, service.Handler = "", s
			var log bytes.Buffer
			src := source(t, service, &log)
			c, err := src.Credential(t.Context())
			return c.Password.Reveal() == password, []any{log.String(), src.Status()}, err
		},
	}
	refused := func(code, message string) standin.Answer {
		return func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			refuse(w, 400, code, message)
			return true
		}
	}
	throttled := refused("ThrottlingException", "Rate exceeded")
	token := func(login, rest string) standin.Answer {
		return l.Reply(200, `{"authorizationData":[{"authorizationToken":"`+login+`"`+rest+`}]}`)
	}
	b64 := base64.StdEncoding.EncodeToString
	standin.TestFaults(
		t, l,
		standin.Fault{
			Name: "throttled once", Asked: 2, Within: 3 * time.Second,
			Answer: func(n int, w http.ResponseWriter, r *http.Request) bool { return n == 1 && throttled(n, w, r) },
		},
		standin.Fault{
			Name: "throttled for good", Asked: 3, Within: 4 * time.Second, Err: "400 ThrottlingException: Rate exceeded",
			Answer: throttled,
		},
		standin.Fault{
			Name: "no right", Asked: 1, Err: "400 AccessDeniedException: User: arn:aws:x is not authorized to perform",
			Answer: refused("AccessDeniedException", "User: arn:aws:x is not authorized to perform: ecr:GetAuthorizationToken"),
		},
		standin.Fault{
			Name: "empty list", Asked: 1, Err: "answered without a login", Answer: l.Reply(200, `{"authorizationData":[]}`),
		},
		standin.Fault{
			Name: "not base64", Asked: 1, Err: "not the base64 of USER:PASSWORD", Answer: token(password+"!", ""),
		},
		standin.Fault{
			Name: "no password", Asked: 1, Err: "not the base64 of USER:PASSWORD", Answer: token(b64([]byte("AWS")), ""),
		},
		standin.Fault{
			Name: "expired", Asked: 1, Err: "a login that has expired",
			Answer: token(b64([]byte("AWS:"+password)), `,"expiresAt":1`),
		},
	)
}

// The instance's metadata can't be reached from a container with a hop limit of 1: it says nothing.
func TestInstanceThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		service := &standin.Service{Handler: private(t), Fault: func(_ int, _ http.ResponseWriter, r *http.Request) bool {
			standin.Hang(r, time.Hour)
			return true
		}}
		src, err := ecr.New(ecr.Options{Host: host, Transport: service, Env: envOf(nil)}, auth.Refresh{Name: "aws"})
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		_, err = src.Credential(t.Context())
		if err == nil || !strings.Contains(err.Error(), "hop limit must be 2") || time.Since(begun) != 2*time.Second {
			t.Errorf("after %s: %v", time.Since(begun), err)
		}
	})
}

func TestHosts(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com":          "https://api.ecr.eu-west-1.amazonaws.com/",
		"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com": "https://ecr-fips.us-gov-west-1.amazonaws.com/",
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":      "https://api.ecr.cn-north-1.amazonaws.com.cn/",
		"123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu":      "https://api.ecr.eusc-de-east-1.amazonaws.eu/",
		"123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov":         "https://api.ecr.us-iso-east-1.c2s.ic.gov/",
		"123456789012.dkr-ecr.eu-west-1.on.aws":                 "https://ecr.eu-west-1.api.aws/",
		"123456789012.dkr-ecr-fips.us-east-1.on.aws":            "https://ecr-fips.us-east-1.api.aws/",
		"public.ecr.aws":     "https://api.ecr-public.us-east-1.amazonaws.com/",
		"ecr-public.aws.com": "https://api.ecr-public.us-east-1.amazonaws.com/",
		"12345678901.dkr.ecr.eu-west-1.amazonaws.com":               "",
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example": "",
		"evil.example/123456789012.dkr.ecr.eu-west-1.amazonaws.com": "",
		"x123456789012.dkr.ecr.eu-west-1.amazonaws.com":             "",
		"123456789012.dkr.ecr.eu-west-1.evil.example.amazonaws.com": "",
		"123456789012.dkr.ecr.eu-west-1.amazonawsxcom":              "",
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com:5000":         "",
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com\n":            "",
		"a.public.ecr.aws": "",
		"docker.io":        "",
	} {
		if got := clouds.ECR.Is(host); got != (want != "") {
			t.Errorf("%q: %t", host, got)
		}
		var asked string
		src, err := ecr.New(ecr.Options{
			Host: host, Transport: transport(func(r *http.Request) { asked = r.URL.String() }),
			Env: envOf(map[string]string{"AWS_ACCESS_KEY_ID": accKey, "AWS_SECRET_ACCESS_KEY": secretKey}),
		}, auth.Refresh{Name: "aws"})
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "is not a registry of Amazon's") {
				t.Errorf("%q: %v", host, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", host, err)
			continue
		}
		if _, err := src.Credential(t.Context()); err == nil || asked != want {
			t.Errorf("%q: asked %s, want %s (%v)", host, asked, want, err)
		}
	}
}

type transport func(*http.Request)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) {
	f(r)
	return nil, io.ErrUnexpectedEOF
}

// Where a name is taken for one of Amazon's, the host of the request is below one of Amazon's own domains.
func FuzzHosts(f *testing.F) {
	f.Add("123456789012.dkr.ecr.eu-west-1.amazonaws.com")
	f.Add("123456789012.dkr-ecr-fips.us-east-1.on.aws")
	f.Fuzz(func(t *testing.T, host string) {
		if !clouds.ECR.Is(host) {
			return
		}
		var asked string
		src, err := ecr.New(ecr.Options{
			Host: host, Transport: transport(func(r *http.Request) { asked = r.URL.Hostname() }),
			Env: envOf(map[string]string{"AWS_ACCESS_KEY_ID": accKey, "AWS_SECRET_ACCESS_KEY": secretKey}),
		}, auth.Refresh{Name: "aws"})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = src.Credential(t.Context())
		ours := false
		for _, d := range []string{
			".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws", ".api.amazonwebservices.com.cn", ".sc2s.sgov.gov",
			".c2s.ic.gov", ".cloud.adc-e.uk", ".csp.hci.ic.gov",
		} {
			ours = ours || strings.HasSuffix(asked, d)
		}
		if !ours || strings.Count(asked, ".") > 5 {
			t.Errorf("%q: asked %q", host, asked)
		}
	})
}
