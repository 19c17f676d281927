package app_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/admin/client"
	"github.com/registrymirror/mirror/diagnose/doctor"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/internal/origin"
)

// hardening are the items that mirror doctor has checked, by name.
func (r *running) hardening(t *testing.T) map[string]doctor.Check {
	t.Helper()
	list := make(map[string]doctor.Check)
	for _, c := range body[doctor.MirrorReport](t, r.App, "doctor").Checks {
		if c.Area != doctor.AreaHardening {
			continue
		}
		if list[c.Name] = c; c.Detail == "" || (c.State != doctor.OK) != (c.Remedy != "") {
			t.Errorf("%+v", c)
		}
	}
	return list
}

// Each item of the checklist in SECURITY.md is checked, and each check is an item of it, in the same order.
func TestHardeningChecklist(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "\n## Hardening checklist\n")
	text, _, _ = strings.Cut(text, "\n## ")
	var want, got []string
	for _, m := range regexp.MustCompile("(?m)^- `([a-z-]+)`: ").FindAllStringSubmatch(text, -1) {
		want = append(want, m[1])
	}
	r := run(t, parse(t, t.TempDir(), upstreamOf(origin.Start(t, origin.Options{}))))
	for _, c := range body[doctor.MirrorReport](t, r.App, "doctor").Checks {
		if c.Area == doctor.AreaHardening {
			got = append(got, c.Name)
		}
	}
	if len(want) < 10 || !slices.Equal(got, want) {
		t.Errorf("mirror doctor checks %q, SECURITY.md has %q", got, want)
	}
	// A mirror on loopback without clients is as it should be, but perhaps for the user of the test.
	for name, c := range r.hardening(t) {
		if c.State != doctor.OK && name != "user" {
			t.Errorf("%+v", c)
		}
	}
}

// Each item is found where it is not as it should be.
func TestHardeningFindsWhatIsOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := origin.Start(t, origin.Options{})
	newAuthority(t, dir)
	users(t, dir, "alice") // at the least cost
	tokenOf(t, dir, "ci")
	for _, name := range []string{"client.crt", "client.key"} {
		b, err := os.ReadFile(filepath.Join(dir, strings.Replace(name, "client", "tls", 1)))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), string(b))
	}
	c := parse(t, dir, fmt.Sprintf("  %s: {endpoints: [%q], access: rules}\n  plain.example: {endpoints: ['http://registry.example']}\n"+
		"  tls.example: {endpoints: [{url: 'https://127.0.0.1:9', clientCert: client.crt, clientKey: client.key}]}\n"+
		"clients: {htpasswd: users, tokens: tokens.yaml}\ntrustedProxies: [10.0.0.0/8]\nrules: [{who: ['*'], pull: ['**']}]\n", nameOf(o), o.URL()))
	c.Listen = "0.0.0.0:0"
	r := run(t, c)
	for _, path := range []string{filepath.Join(dir, "users"), c.Cache.Dir} {
		if err := os.Chmod(path, 0o755); err != nil { //nolint:gosec // it has to be found
			t.Fatal(err)
		}
	}
	list := r.hardening(t)
	for name, text := range map[string]string{
		"tls": "in clear text", "rules": "each client that can connect pulls **", "upstream-certificates": "upstreams.tls.example.endpoints[0].clientCert",
		"upstream-tls": "http://registry.example", "passwords": "has the cost 4", "tokens": "never end: ci", "trusted-proxies": "10.0.0.0/8",
		"secret-files": "can read " + filepath.Join(dir, "users"), "data-folder": "can look into",
	} {
		if got := list[name]; got.State != doctor.Warning || !strings.Contains(got.Detail, text) {
			t.Errorf("%s: %+v, want %q", name, got, text)
		}
	}
}

// Clients with logins of their own at registries log in, too.
func TestHardeningOfClientsOwnLogins(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	for listen, want := range map[string]doctor.Check{
		"127.0.0.1:0": {State: doctor.OK, Detail: "logins stay on this machine"},
		"0.0.0.0:0":   {State: doctor.Warning, Detail: "speaks plain HTTP: clients of other machines are not asked for their own logins (access: client)"},
	} {
		c := parse(t, t.TempDir(), strings.Replace(upstreamOf(o), "{", "{access: client, ", 1))
		c.Listen = listen
		if got := run(t, c).hardening(t)["tls"]; got.State != want.State || !strings.Contains(got.Detail, want.Detail) {
			t.Errorf("%s: %+v", listen, got)
		}
	}
}

// A right for each operator to change everything is found, and tokens of operators that never end.
func TestHardeningOfOperators(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		rights  string
		expires string
		state   doctor.State
		text    string
	}{
		"named":              {"{who: [ann], may: operate}, {who: ['*'], may: read}", "2999-01-01T00:00:00Z", doctor.OK, "is named"},
		"everyone, for some": {"{who: ['*'], may: operate, images: ['**/acme/*']}", "2999-01-01T00:00:00Z", doctor.OK, "is named"},
		"everyone":           {"{who: ['*'], may: operate}", "2999-01-01T00:00:00Z", doctor.Warning, "lets each operator change everything"},
		"a token for ever":   {"{who: [ann], may: operate}", "", doctor.Warning, "never end: ann"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			token, hash := identity.NewToken()
			write(t, filepath.Join(dir, "operators.yaml"), "tokens:\n"+identity.TokenEntry{Name: "ann", SHA256: hash, Expires: tt.expires}.Line())
			a, _ := start(t, settings(t, dir, "{listen: '127.0.0.1:0', operators: {tokens: operators.yaml, rights: ["+tt.rights+", {who: [ann], may: read}]}}", ""))
			c, err := client.New(client.Options{URL: "http://" + a.AdminAddr().String(), Token: token})
			if err != nil {
				t.Fatal(err)
			}
			b, err := c.Do(t.Context(), "GET", "doctor", nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			var report doctor.MirrorReport
			if err := json.Unmarshal(b, &report); err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(report.Checks, func(c doctor.Check) bool { return c.Name == "operators" })
			if i < 0 || report.Checks[i].State != tt.state || !strings.Contains(report.Checks[i].Detail, tt.text) {
				t.Errorf("%+v", report.Checks)
			}
		})
	}
}

// An outdated list of revoked certificates is found, in the metrics too; after seven days it breaks the check.
func TestOutdatedRevocationList(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		ends  time.Duration
		state doctor.State
		text  string
	}{
		"current":  {time.Hour, doctor.OK, "none has ended"},
		"outdated": {-time.Hour, doctor.Warning, "on no certificate of that authority counts"},
		"refused":  {-8 * 24 * time.Hour, doctor.Broken, "no certificate of that authority counts"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			o := origin.Start(t, origin.Options{})
			newAuthority(t, dir)
			write(t, filepath.Join(dir, "crl"), listThatEnds(t, dir, time.Now().Add(tt.ends)))
			r := run(t, keyed(t, dir, o, ", crl: crl"))
			if got := r.hardening(t)["revocation-list"]; got.State != tt.state || !strings.Contains(got.Detail, tt.text) {
				t.Errorf("%+v", got)
			}
			_, text := get(t, "http://"+r.AdminAddr().String()+"/metrics")
			line := regexp.MustCompile(`(?m)^mirror_client_crl_expiry_seconds\{authority="CN=test",setting="clients.crl"\} (-?)[0-9]`).FindStringSubmatch(text)
			if line == nil || (line[1] == "-") != (tt.ends < 0) {
				t.Errorf("the metric: %q", line)
			}
		})
	}
}

// The lists of clients and of operators are measured each, of one authority too.
func TestRevocationListsAreMeasured(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	newAuthority(t, dir)
	write(t, filepath.Join(dir, "nodes.crl"), listThatEnds(t, dir, time.Now().Add(time.Hour)))
	write(t, filepath.Join(dir, "operators.crl"), listThatEnds(t, dir, time.Now().Add(-time.Hour)))
	const tls = "tls: {cert: tls.crt, key: tls.key}"
	a, _ := start(t, settings(t, dir, "{listen: '127.0.0.1:0', "+tls+", operators: {ca: ca.crt, crl: operators.crl, rights: [{who: [ann], may: read}]}}",
		tls+"\nclients: {ca: ca.crt, crl: nodes.crl}\nmetrics: {listen: '127.0.0.1:0'}"))
	_, text := get(t, "http://"+a.MetricsAddr().String()+"/metrics")
	for _, want := range []string{`{authority="CN=test",setting="clients.crl"} 3`, `{authority="CN=test",setting="admin.operators.crl"} -3`} {
		if !strings.Contains(text, "mirror_client_crl_expiry_seconds"+want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}
