package e2e_test

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// prometheusServer is a real one, which scrapes each second.
type prometheusServer struct {
	*proc.Process
	url string
}

// startPrometheus runs one with the alerts, until the test ends. targets are addresses by job.
func startPrometheus(t *testing.T, targets map[string]string) *prometheusServer {
	t.Helper()
	rules, err := filepath.Abs(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	conf := map[string]any{"global": map[string]any{"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": []string{rules}}
	var jobs []any
	for job, address := range targets {
		jobs = append(jobs, map[string]any{"job_name": job, "static_configs": []any{map[string]any{"targets": []string{address}}}})
	}
	conf["scrape_configs"] = jobs
	dir := t.TempDir()
	text, err := json.Marshal(conf) // JSON is YAML
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "prometheus.yml"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &prometheusServer{Process: proc.Start(t, proc.Options{Name: "prometheus"}, tool.System(t, "prometheus"),
		"--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0")}
	listens := regexp.MustCompile(`msg="Listening on" address=(127\.0\.0\.1:\d+)`)
	wait.For(t, time.Minute, "prometheus to listen", func() error {
		m := listens.FindStringSubmatch(s.Output())
		if m == nil {
			return errors.Join(errors.New("it does not say where it listens"), s.Exited())
		}
		s.url = "http://" + m[1]
		return nil
	})
	return s
}

// get asks its API, into a value for the field data.
func (s *prometheusServer) get(path string, query url.Values, into any) error {
	resp, err := http.Get(s.url + "/api/v1/" + path + "?" + query.Encode())
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.Unmarshal(b, &answer); err != nil || answer.Status != "success" {
		return fmt.Errorf("%d %s: %q (%w)", resp.StatusCode, answer.Status, answer.Error, err)
	}
	return json.Unmarshal(answer.Data, into)
}

// samples is how many series an expression has now.
func (s *prometheusServer) samples(expr string) (int, error) {
	var data struct{ Result []json.RawMessage }
	err := s.get("query", url.Values{"query": {expr}}, &data)
	return len(data.Result), err
}

// rule is one of the alerts, or a recorded expression.
type rule struct{ Name, Query, Health, LastError, State, Type string }

// rules are those that it has loaded.
func (s *prometheusServer) rules() (list []rule, err error) {
	var data struct{ Groups []struct{ Rules []rule } }
	err = s.get("rules", nil, &data)
	for _, g := range data.Groups {
		list = append(list, g.Rules...)
	}
	return list, err
}

// scraped is what a Prometheus has of each metric: its labels, and their values.
type scraped map[string]map[string]map[string]bool

func (s *prometheusServer) scraped(t *testing.T) scraped {
	t.Helper()
	var series []map[string]string
	if err := s.get("series", url.Values{"match[]": {`{job=~".+"}`}}, &series); err != nil {
		t.Fatal(err)
	}
	all := make(scraped)
	for _, labels := range series {
		name := labels["__name__"]
		if all[name] == nil {
			all[name] = make(map[string]map[string]bool)
		}
		for label, value := range labels {
			if all[name][label] == nil {
				all[name][label] = make(map[string]bool)
			}
			all[name][label][value] = true
		}
	}
	return all
}

var (
	metricName = regexp.MustCompile(`\b(?:mirror|process|go)_\w+|\bnamespace_job_upstream:\w+:\w+`)
	selector   = regexp.MustCompile(`([\w:]+)\{([^}]*)\}`)
	matcher    = regexp.MustCompile(`(\w+)(=~|!~|!=|=)"([^"]*)"`)
	grouping   = regexp.MustCompile(`\b(?:by|on|without|ignoring) ?\(([^)]*)\)`)
)

// unknown are the metrics, labels and values that an expression names and no scrape has. Labels of the target, and values of closed
// lists that did not occur, are known.
func (all scraped) unknown(expr string) (list []string) {
	target := []string{"namespace", "job", "instance", "exported_endpoint"}
	closed := []string{"hit", "miss", "joined", "uncached", "stale"} // results of requests; the outcomes of pulls begin at zero
	for class := range all["mirror_warm_failures_total"]["class"] {  // which has every class from the start
		closed = append(closed, class)
	}
	pages, _ := filepath.Glob("../docs/failures/*.md") // one for each reason
	for _, page := range pages {
		closed = append(closed, strings.TrimSuffix(filepath.Base(page), ".md"))
	}
	names := metricName.FindAllString(expr, -1)
	if len(names) == 0 {
		return []string{"no metric in " + expr}
	}
	for _, name := range names {
		if all[name] == nil {
			list = append(list, "metric "+name)
		}
	}
	for _, s := range selector.FindAllStringSubmatch(expr, -1) {
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			values := all[s[1]][m[1]]
			if values == nil && !slices.Contains(target, m[1]) {
				list = append(list, "label "+m[1]+" of "+s[1])
				continue
			}
			for value := range strings.SplitSeq(m[3], "|") {
				if value != ".*" && !values[value] && !slices.Contains(closed, value) {
					list = append(list, fmt.Sprintf("value %q of %s of %s", value, m[1], s[1]))
				}
			}
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(strings.ReplaceAll(g[1], " ", ""), ",") {
			if !slices.Contains(target, label) && !slices.ContainsFunc(names, func(name string) bool { return all[name][label] != nil || all[name+"_bucket"][label] != nil }) {
				list = append(list, "label "+label+" of "+strings.Join(names, ", "))
			}
		}
	}
	return list
}

// dashboardExpressions are those of the dashboards' panels and variables, as Grafana would send them.
func dashboardExpressions(t *testing.T) map[string]string {
	t.Helper()
	exprs := make(map[string]string) // the panel, by expression
	for _, file := range []string{"dashboard.json", "dashboard-users.json"} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(alertsFile), file))
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
			Templating struct{ List []struct{ Definition string } }
		}
		if err := json.Unmarshal(b, &d); err != nil {
			t.Fatal(err)
		}
		replace := strings.NewReplacer("$__rate_interval", "5m", "$__range", "5m", "$job", ".*", "$instance", ".*", "$upstream", ".*")
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				exprs[replace.Replace(target.Expr)] = file + ": " + p.Title
			}
		}
		for _, v := range d.Templating.List {
			if m := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`).FindStringSubmatch(v.Definition); m != nil {
				exprs["count by ("+m[2]+") ("+replace.Replace(m[1])+")"] = file + ": variable " + m[2]
			}
		}
	}
	if len(exprs) < 50 {
		t.Errorf("only %d expressions were found in the dashboards", len(exprs))
	}
	return exprs
}

// apiServer is one that has a pod, and takes every event.
func apiServer(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") != "" {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		items := ""
		if r.URL.Path == "/api/v1/pods" {
			items = `{"metadata":{"namespace":"prod","name":"a","resourceVersion":"8"},"spec":{"containers":[{"image":"docker.io/library/app:v1"}]}}`
		}
		_, _ = fmt.Fprintf(w, `{"metadata":{"resourceVersion":"9"},"items":[%s]}`, items)
	}))
	t.Cleanup(s.Close)
	return s
}

// observed is a mirror that has met everything that alerts and dashboards show, and the agent of a node.
type observed struct {
	m     *mirrord.Mirror
	agent string // its address
}

func startObserved(t *testing.T) (s observed, events func()) {
	t.Helper()
	upstream := origin.Start(t, origin.Options{Limit: origin.Limit{Manifests: 1000, Window: 6 * time.Hour}})
	first := upstream.AddImage("library/app", "v1", origin.Image{Layers: []int64{1 << 10}})
	upstream.AddImage("library/app", "latest", origin.Image{Layers: []int64{2 << 10}})
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { // of a machine in a cloud
		w.Header().Set("Metadata-Flavor", "Google")
		_, _ = io.WriteString(w, `{"access_token":"s3same","expires_in":3600,"token_type":"Bearer"}`)
	}))
	t.Cleanup(metadata.Close)
	locked := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: "basic", Username: "oauth2accesstoken", Password: "s3same"}})
	locked.AddImage("acme/app", "v1", origin.Image{Layers: []int64{1 << 10}})
	gone := origin.Start(t, origin.Options{})
	gone.Down()
	api := apiServer(t)
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	token := write("token", "sesame", 0o600)
	ca := write("ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})), 0o600)
	write("hook.secret", "5b1d7e9042c64f3a8d0e1f2a3b4c5d6e", 0o600)
	s.m = mirrord.Start(t, mirrord.Options{
		Dir: dir, Env: []string{"GCE_METADATA_HOST=" + strings.TrimPrefix(metadata.URL, "http://")},
		Upstreams: fmt.Sprintf(`docker.io:
  endpoints: [%s]
  tags: {maxAge: 1ms, immutable: ["^v1$"]}
  credentials:
    - {name: lost, username: bot, passwordFile: %q}
europe-docker.pkg.dev: {endpoints: [%s], access: rules, credentials: [{name: google, gar: {}}]}
gone.example: {endpoints: [%s]}`, upstream.URL(), filepath.Join(dir, "nothing"), locked.URL(), gone.URL()),
		More: fmt.Sprintf(`rules: [{who: [anonymous], pull: ["europe-docker.pkg.dev/**"]}]
webhooks: {ci: {type: generic, secretFile: hook.secret}}
warm: {schedules: [{name: main, onTagMove: true, images: ["docker.io/library/app:latest"]}]}
kubernetes: {events: true, feed: true, coverage: true, server: %q, tokenFile: %q, caFile: %q}`, api.URL, token, ca),
	})
	s.agent = "127.5.2.9:5002" // an address of this test alone
	proc.Start(t, proc.Options{Name: "agent"}, mirrord.Binary, "node", "run", "--mirror", s.m.URL(), "--registry", "docker.io",
		"--dir", filepath.Join(t.TempDir(), "certs.d"), "--every", "1s", "--listen", s.agent)

	pull := func(path string) { mirrord.Get(t, s.m.URL()+"/v2/"+path) }
	return s, func() {
		t.Helper()
		for range 2 { // a miss, and a hit
			pull("docker.io/library/app/manifests/v1")
			pull("docker.io/library/app/manifests/latest")
			for _, b := range first.Blobs() {
				pull("docker.io/library/app/blobs/" + b.Digest.String())
			}
		}
		pull("europe-docker.pkg.dev/acme/app/manifests/v1")
		moved := upstream.AddImage("library/app", "latest", origin.Image{Layers: []int64{3 << 10}})
		upstream.SetTag("library/app", "v1", moved.Root.Digest)
		pull("docker.io/library/app/manifests/latest")
		command(t, s.m, "tags", "refresh", "docker.io/library/app:v1")
		resp, err := http.Post(s.m.URL()+"/webhooks/ci", "application/json", strings.NewReader(`{"image":"docker.io/library/app:v1"}`))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		equal(t, "answer to a report with no signature", resp.StatusCode, http.StatusForbidden)
		proc.Run(t, proc.Options{}, mirrord.Binary, "warm", "docker.io/library/app:nothing", "--admin", s.m.Admin)
		command(t, s.m, "warm", "--detach", "gone.example/app:1")
		write("mirror.yaml", "nonsense: true\n", 0o600)
		s.m.Signal(t, syscall.SIGHUP)
	}
}

// TestPrometheus: a real Prometheus scrapes a mirror and the agent of a node, and loads the alerts. Each metric, label and value of
// the alerts and dashboards is in the scrape, each rule evaluates without an error, each expression of a dashboard has a result,
// and alerts see the one event that they wait for.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	s, events := startObserved(t)
	p := startPrometheus(t, map[string]string{"mirror": strings.TrimPrefix(s.m.Admin, "http://"), "mirror-nodes": s.agent})
	has := func(expr string) error {
		n, err := p.samples(expr)
		if err == nil && n == 0 {
			err = fmt.Errorf("no result: %s", expr)
		}
		return err
	}
	// Events come after the first scrape: an alert has to see a counter rise from its first value.
	for _, expr := range []string{"mirror_build_info", "mirror_node_configured == 1", "mirror_feed_images_warm == 1"} {
		wait.For(t, 2*time.Minute, expr, func() error { return has(expr) })
	}
	events()

	exprs := dashboardExpressions(t)
	n, last := 0, time.Time{}
	failing := func() { // a pull counts a minute after its last request; these are others, so that their number rises
		if time.Since(last) < time.Second {
			return
		}
		n, last = n+1, time.Now()
		mirrord.Get(t, fmt.Sprintf("%s/v2/gone.example/app%d/manifests/1", s.m.URL(), n))
	}
	wait.For(t, 5*time.Minute, "each expression of the dashboards to have a result", func() error {
		failing()
		var missing []error
		for expr, panel := range exprs {
			if err := has(expr); err != nil {
				missing = append(missing, fmt.Errorf("%s: %w", panel, err))
				continue
			}
			delete(exprs, expr)
		}
		return errors.Join(missing...)
	})

	// Recorded, once a failing pull has been counted twice.
	wait.For(t, 2*time.Minute, "the failures to be recorded", func() error { return has("namespace_job_upstream:mirror_failures:increase5m") })
	all := p.scraped(t)
	for expr, panel := range dashboardExpressions(t) {
		for _, what := range all.unknown(expr) {
			t.Errorf("%s: no scrape has the %s", panel, what)
		}
	}
	var rules []rule
	wait.For(t, time.Minute, "the rules to be evaluated", func() error {
		var err error
		rules, err = p.rules()
		if i := slices.IndexFunc(rules, func(r rule) bool { return r.Health != "ok" }); err == nil && (i >= 0 || len(rules) != 13) {
			err = fmt.Errorf("%d rules: %+v", len(rules), rules)
		}
		return err
	})
	for _, r := range rules {
		for _, what := range all.unknown(r.Query) {
			t.Errorf("%s: no scrape has the %s", r.Name, what)
		}
	}
	// The state of each alert in this scene. Without a wait it fires at once.
	want := map[string]string{
		"MirrorAbsent": "inactive", "MirrorNodesWithdrawn": "inactive", "MirrorDiskNotCaching": "inactive", "MirrorContentDamaged": "inactive",
		"MirrorWarmUpFailing": "inactive", // the image does not exist
		"MirrorRateLimitLow":  "inactive", "MirrorServingStale": "inactive",
		"MirrorTagMoved": "firing", "MirrorCredentialFailing": "pending", "MirrorConfigRejected": "pending", "MirrorEndpointDown": "pending",
	}
	for _, r := range rules {
		if state, ok := want[r.Name]; ok {
			equal(t, "state of "+r.Name, r.State, state)
			delete(want, r.Name)
		}
	}
	if len(want) > 0 {
		t.Errorf("Prometheus has no alerts %v", want)
	}
}

// TestPrometheusNamesAreChecked holds the check of names itself: it finds what no scrape has.
func TestPrometheusNamesAreChecked(t *testing.T) {
	t.Parallel()
	all := scraped{"mirror_pulls_total": {"__name__": {}, "job": {"m": true}, "outcome": {"served": true, "odd": true}}}
	for expr, want := range map[string]string{
		`sum by (job, outcome) (rate(mirror_pulls_total{job=~".*",outcome=~"odd|stale"}[5m]))`: "",
		`mirror_pull_total`:                                 "metric mirror_pull_total",
		`mirror_pulls_total{outcom="odd"}`:                  "label outcom of mirror_pulls_total",
		`mirror_pulls_total{outcome=~"odd|oddd"}`:           `value "oddd" of outcome of mirror_pulls_total`,
		`sum by (upstream) (mirror_pulls_total)`:            "label upstream of mirror_pulls_total",
		`mirror_pulls_total and on (instance, x) vector(1)`: "label x of mirror_pulls_total",
		`vector(1)`: "no metric in vector(1)",
		`mirror_pulls_total unless mirror_other_total offset 5m`: "metric mirror_other_total",
	} {
		equal(t, expr, strings.Join(all.unknown(expr), "; "), want)
	}
}
