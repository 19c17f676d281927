package symptom_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/unicode"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/diagnose/symptom"
	"github.com/registrymirror/mirror/oci"
)

func read(t testing.TB, input string) *symptom.Report {
	t.Helper()
	r, err := symptom.Read(strings.NewReader(input))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sample is a line of the corpus: the output of a client, and its reason.
type sample struct{ reason, line string }

func corpus(t testing.TB) (all []sample) {
	t.Helper()
	b, err := os.ReadFile("testdata/corpus.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		reason, text, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if ok {
			all = append(all, sample{reason, text})
		}
	}
	return all
}

// TestCorpus holds the reader to real output of clients: 95 of 100 right, the rest unknown, none in a wrong class.
func TestCorpus(t *testing.T) {
	t.Parallel()
	all := corpus(t)
	if len(all) < 60 {
		t.Fatalf("only %d lines", len(all))
	}
	right, known := 0, make(map[string]bool)
	for _, s := range all {
		r := read(t, s.line+"\n")
		got := "none"
		if len(r.Failures) > 0 {
			got = string(r.Failures[0].Reason)
		}
		switch {
		case got == s.reason && len(r.Failures) <= 1:
			right++
			known[s.reason] = true
		case got == string(diagnose.Unknown) && s.reason != "none":
			t.Logf("unknown, should be %s: %s", s.reason, s.line)
		default:
			t.Errorf("%s, should be %s: %s", got, s.reason, s.line)
		}
	}
	if right*100 < len(all)*95 {
		t.Errorf("%d of %d are right", right, len(all))
	}
	for _, s := range all {
		if !known[s.reason] {
			t.Errorf("no line of %s is read", s.reason)
		}
	}
	t.Logf("%d of %d lines are right", right, len(all))
}

// ownSentence is a sentence of a mirror, with the image and host of its id.
type ownSentence struct {
	reason                        diagnose.Reason
	summary, short, remedy, image string
	host                          string
}

func (s ownSentence) id() string { return diagnose.Finding{Reason: s.reason, Host: s.host}.ID(s.image) }

// ownSentences are those of diagnose's golden file, and those that the front end and the journal make.
func ownSentences(t *testing.T) []ownSentence {
	t.Helper()
	b, err := os.ReadFile("../testdata/explain.golden")
	if err != nil {
		t.Fatal(err)
	}
	var all []ownSentence
	finding := regexp.MustCompile(`(?m)^([a-z-]+) \([a-z]+\)(?:, declined)?\n(.+)\n(?:~ (.+)\n)?-> (.+)\n   image=(\S+) id=(\S+)\n   upstream=\S* host=(\S*)`)
	for _, m := range finding.FindAllStringSubmatch(string(b), -1) {
		s := ownSentence{diagnose.Reason(m[1]), m[2], m[3], m[4], m[5], m[7]}
		if s.id() != m[6] {
			t.Errorf("%s: the golden file says %s of it", s.id(), m[6])
		}
		all = append(all, s)
	}
	const image, upstream = "docker.io/library/nginx:1.27", "docker.io"
	_, f, _ := diagnose.UnusedIndex{
		Image: image, Platforms: []oci.Platform{oci.ParsePlatform("linux/arm64")}, Client: "node-1", Platform: "linux/amd64",
	}.Missing()
	return append(all,
		ownSentence{f.Reason, f.Summary, "", f.Remedy, image, upstream},
		ownSentence{diagnose.TooSlow, "node-1 left after 12.0 MB of 1200.0 MB of a layer of " + image + ", in 2m0s", "", "find the slow part", image, upstream},
		ownSentence{diagnose.ClientGone, "node-1 left after 12.0 MB of 1200.0 MB of a layer of " + image + ", in 2s", "", "nothing, if the pod was removed", image, upstream},
		ownSentence{diagnose.Overloaded, "the mirror has as many connections as it may have", "", "pull again in a moment", "", ""},
		ownSentence{diagnose.InternalError, "the mirror failed at this request", "", "look at the mirror's log for the panic, and report it", image, ""},
	)
}

// Each sentence of a mirror is read back to its reason by its id, whatever its words are.
func TestOwnSentences(t *testing.T) {
	t.Parallel()
	held := make(map[diagnose.Reason]bool)
	for _, s := range ownSentences(t) {
		pulled := s.image
		switch {
		case pulled == "":
			pulled = "docker.io/library/nginx:1.27"
		case !strings.ContainsAny(pulled[strings.LastIndex(pulled, "/"):], ":@"):
			pulled += ":1.27" // a blob of it
		}
		for form, text := range map[string]string{
			"a status line":          "Failed to pull image \"%s\": unexpected status from HEAD request to http://m/v2/: 502 Bad Gateway (mirror: %s)",
			"the message of Podman":  "Error: initializing source docker://%s: reading manifest 1.27 in m/library/nginx: denied: %s",
			"the message of CRI-O":   "Failed to pull image \"%s\": (Mirrors also failed: [m/library/nginx:1.27: reading manifest 1.27 in m/library/nginx: denied: %s]): docker.io/library/nginx:1.27: pinging container registry registry-1.docker.io: Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: no such host",
			"the message of a chart": "Error: INSTALLATION FAILED: failed to pull oci://%s: unknown: %s",
		} {
			// As it stands in a status line the mirror has just been named, the image may be beside it, and the remedy may be left out.
			for _, sentence := range []string{s.summary + "; " + s.remedy, strings.TrimPrefix(s.summary, "the mirror "), strings.TrimPrefix(s.short, "the mirror ")} {
				if sentence == "" {
					continue
				}
				r := read(t, fmt.Sprintf(text, pulled, sentence+" ["+s.id()+"]"))
				if len(r.Failures) != 1 {
					t.Errorf("%s: %d failures in %q", form, len(r.Failures), sentence)
					continue
				}
				summary, _, _ := strings.Cut(sentence, "; ")
				if f := r.Failures[0]; f.Reason != s.reason || f.ID != s.id() || f.Summary != diagnose.Clean(summary) {
					t.Errorf("%s: %s, id %q, %q; want %s, %s: %q", form, f.Reason, f.ID, f.Summary, s.reason, s.id(), summary)
				}
				held[s.reason] = true
			}
		}
	}
	for _, r := range diagnose.Reasons() {
		if r.Origin() != diagnose.OnNode && r.Origin() != diagnose.InWarmUp && !held[r] {
			t.Errorf("no sentence of %s is read", r)
		}
	}
}

// The most common sentences are read by their words where a program has cut the id off; of others the reason is unknown.
func TestOwnSentencesWithoutID(t *testing.T) {
	t.Parallel()
	for summary, want := range map[string]diagnose.Reason{
		"registry-1.docker.io refused the connection":                                             diagnose.ConnectRefused,
		"there is no host registry-1.docker.io in DNS, needed for the manifest":                   diagnose.DNSNotFound,
		"the mirror has no credentials for docker.io/acme/app, which is private or doesn't exist": diagnose.NotFoundOrNoAccess,
		"docker.io has no acme/app:v1":                                                            diagnose.TagNotFound,
		"docker.io limits anonymous pulls from the mirror's address, and the limit is reached":    diagnose.RateLimited,
		"docker.io did something else":                                                            diagnose.Unknown,
	} {
		r := read(t, `Failed to pull image "acme/app:v1": unexpected status from HEAD request to http://m/v2/: 502 Bad Gateway (mirror: `+summary+"; check th...")
		if len(r.Failures) != 1 || r.Failures[0].Reason != want || r.Failures[0].ID != "" || r.Failures[0].Summary != summary {
			t.Errorf("%s: %+v, want %s", summary, r.Failures, want)
		}
	}
}

// The events, the back-offs, the pod's state and the runtime's log report one failure; it is counted once.
func TestDescribe(t *testing.T) {
	t.Parallel()
	r := read(t, `Name:             web-1
Status:           Pending
Containers:
  web:
    Image:          nginx:no-such
    State:          Waiting
      Reason:       ImagePullBackOff
Events:
  Type     Reason     Age                From               Message
  ----     ------     ----               ----               -------
  Normal   Scheduled  5m                 default-scheduler  Successfully assigned default/web-1 to node-1
  Normal   Pulling    4m (x3 over 5m)    kubelet            Pulling image "nginx:no-such"
  Warning  Failed     4m (x3 over 5m)    kubelet            Failed to pull image "nginx:no-such": rpc error: code = NotFound desc = failed to pull and unpack image "docker.io/library/nginx:no-such": failed to resolve reference "docker.io/library/nginx:no-such": docker.io/library/nginx:no-such: not found
  Warning  Failed     4m (x3 over 5m)    kubelet            Error: ErrImagePull
  Normal   BackOff    3m (x6 over 5m)    kubelet            Back-off pulling image "nginx:no-such"
  Warning  Failed     3m (x6 over 5m)    kubelet            Error: ImagePullBackOff
E0507 11:59:31.815103 2791 pod_workers.go:1300] "Error syncing pod, skipping" err="failed to \"StartContainer\" for \"web\" with ErrImagePull: \"rpc error: code = NotFound desc = failed to pull and unpack image \\\"docker.io/library/nginx:no-such\\\": failed to resolve reference \\\"docker.io/library/nginx:no-such\\\": docker.io/library/nginx:no-such: not found\""
`)
	if len(r.Failures) != 1 {
		t.Fatalf("%+v", r.Failures)
	}
	f := r.Failures[0]
	if f.Reason != diagnose.TagNotFound || f.Count != 3 || f.Image != "docker.io/library/nginx:no-such" {
		t.Errorf("%+v", f)
	}
	if got := r.Line(); got != "3 failures: 0 authentication, 3 missing images, 0 other" {
		t.Error(got)
	}
}

// The further lines of an error are read: containerd puts a registry's sentence on a line of its own.
func TestSeveralLines(t *testing.T) {
	t.Parallel()
	r := read(t, `  Warning  Failed  4m (x2 over 5m)  kubelet  Failed to pull image "registry.example.com/a:1": failed to pull and unpack image "registry.example.com/a:1": failed to resolve image: unexpected status from HEAD request to https://registry.example.com/v2/a/manifests/1: 403 Forbidden
denied: Your authorization token has expired. Reauthenticate and try again.
`)
	if len(r.Failures) != 1 || r.Failures[0].Reason != diagnose.CredentialsExpired || r.Failures[0].Count != 2 {
		t.Errorf("%+v", r.Failures)
	}
}

// Windows writes UTF-16, or a mark before UTF-8.
func TestEncodings(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`Failed to pull image "acme/app:1": toomanyrequests: You have reached your pull rate limit.`,
		`{"kind":"Event","reason":"Failed","message":"Failed to pull image \"acme/app:1\": toomanyrequests: You have reached your pull rate limit."}`,
	} {
		for name, e := range map[string]encoding.Encoding{
			"UTF-16LE": unicode.UTF16(unicode.LittleEndian, unicode.UseBOM), "UTF-16BE": unicode.UTF16(unicode.BigEndian, unicode.UseBOM),
			"UTF-8": unicode.UTF8BOM,
		} {
			written, err := e.NewEncoder().String(text)
			if err != nil {
				t.Fatal(err)
			}
			r, err := symptom.Read(strings.NewReader(written))
			if err != nil || len(r.Failures) != 1 || r.Failures[0].Reason != diagnose.RateLimited || r.Failures[0].Image != "docker.io/acme/app:1" {
				t.Errorf("%s of %s: %+v, %v", name, text, r, err)
			}
		}
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		input string
		want  map[string]int64
	}{
		"events": {
			`{"kind":"List","items":[
			{"kind":"Event","reason":"Pulling","message":"Pulling image \"x\"","count":9},
			{"kind":"Event","reason":"Failed","message":"Failed to pull image \"acme.azurecr.io/a:1\": unauthorized: authentication required","count":5},
			{"kind":"Event","reason":"Failed","message":"Error: ErrImagePull","count":5},
			{"kind":"Event","reason":"BackOff","message":"Back-off pulling image \"acme.azurecr.io/a:1\"","count":50},
			{"kind":"Event","reason":"Failed","note":"Failed to pull image \"acme.azurecr.io/b:1\": failed to resolve reference \"acme.azurecr.io/b:1\": acme.azurecr.io/b:1: not found","series":{"count":4}},
			{"kind":"Event","reason":"Unhealthy","message":"Readiness probe failed: connection refused","count":7}]}`,
			map[string]int64{"credentials-missing": 5, "tag-not-found": 4},
		},
		"pods": {
			`{"kind":"PodList","items":[{"kind":"Pod","status":{"containerStatuses":[
			{"image":"acme/a:1","state":{"waiting":{"reason":"ImagePullBackOff","message":"Back-off pulling image \"acme/a:1\": ErrImagePull: dial tcp 10.0.0.1:443: i/o timeout"}}},
			{"image":"acme/b:1","state":{"waiting":{"reason":"ErrImageNeverPull","message":"Container image \"acme/b:1\" is not present with pull policy of Never"}}},
			{"image":"acme/c:1","state":{"waiting":{"reason":"CrashLoopBackOff","message":"back-off 5m0s restarting failed container"}}},
			{"image":"acme/d:1","state":{"running":{}}}]}}]}`,
			map[string]int64{"connect-timeout": 1, "never-pull": 1},
		},
		"only a back-off": {
			`{"kind":"Event","reason":"BackOff","message":"Back-off pulling image \"a:1\"","count":50}`,
			map[string]int64{"unknown": 50},
		},
		"azure": {
			`{"events":[{"count":3,"message":"Failed to pull image \"mcr.microsoft.com/x\": rpc error: code 2 desc Error: image t/x:latest not found","name":"Failed"}]}`,
			map[string]int64{"tag-not-found": 3},
		},
		"journald": {
			`{"MESSAGE":"PullImage \"a:1\" failed","error":"dial tcp: lookup r.example on 10.0.0.1:53: no such host"}` + "\n" +
				`{"MESSAGE":"something else"}`,
			map[string]int64{"dns-not-found": 1},
		},
		"the mirror": {
			`{"level":"WARN","msg":"pull failed","ref":"docker.io/acme/app:v1","reason":"rate-limited","id":"7f3a9c2e","summary":"s","remedy":"r"}`,
			map[string]int64{"rate-limited": 1},
		},
		"not JSON after all": {"{not json\nError response from daemon: toomanyrequests: x\n", map[string]int64{"rate-limited": 1}},
		"empty":              {"", map[string]int64{}},
	} {
		got := map[string]int64{}
		for _, f := range read(t, tt.input).Failures {
			got[string(f.Reason)] += f.Count
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

func TestSecretsAreCut(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`Failed to pull image "registry.example.com/a:1": failed to copy: httpReadSeeker: failed open: Get "https://u:hunter2@cdn.example.com/b?X-Amz-Signature=topsecret": dial tcp 10.0.0.1:443: i/o timeout`,
		`Error response from daemon: Get "https://hunter2@registry.example.com/v2/": unauthorized: authentication required`,
		`Error: GET https://x:hunter2@registry.example.com/v2/a/manifests/1?token=topsecret: UNAUTHORIZED: authentication required`,
	} {
		r := read(t, text+"\n")
		b, err := json.Marshal(r)
		if err != nil || len(r.Failures) != 1 || strings.Contains(string(b), "topsecret") || strings.Contains(string(b), "hunter2") {
			t.Errorf("%s, %v", b, err)
		}
	}
}

// TestWords holds the word of each pattern to the pattern: were one too long, a text would be missed.
func TestWords(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{
		`no such host`:                 "no such host",
		`name[ _]unknown`:              "unknown",
		`manifest for \S+ not found`:   "manifest for ",
		`(a|b)c+(de)?`:                 "c",
		`(foo ?){2,}bar`:               "foo",
		`(?i)foo`:                      "",
		`(foo)*bar`:                    "bar",
		`one|two`:                      "",
		`4\d\d (internal|bad gateway)`: "4",
	} {
		if got := symptom.Word(pattern); got != want {
			t.Errorf("%s: %q, want %q", pattern, got, want)
		}
	}
}

// BenchmarkRead reads the corpus, one line after the other.
func BenchmarkRead(b *testing.B) {
	all := corpus(b)
	for b.Loop() {
		for _, s := range all {
			if _, err := symptom.Read(strings.NewReader(s.line)); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(all)), "us/line")
}

func FuzzRead(f *testing.F) {
	for _, s := range corpus(f) {
		f.Add(s.line)
	}
	for _, file := range fields {
		for _, p := range field(f, file) {
			f.Add(p.Text)
		}
	}
	f.Add(`{"kind":"List","items":[{"kind":"Event","message":"Failed to pull image \"a\": x","count":-1e300}]}`)
	f.Add(`{"msg":"{\"msg\":\"pull failed\"}","error":"x"}`)
	f.Fuzz(func(t *testing.T, input string) {
		r, err := symptom.Read(strings.NewReader(input))
		if err != nil {
			t.Fatal(err)
		}
		var sum int64
		for _, x := range r.Failures {
			if x.Count < 1 || x.Summary == "" || x.Remedy == "" || x.Class != x.Reason.Class() {
				t.Errorf("%+v", x)
			}
			if strings.ContainsAny(x.Text+x.Image+x.Summary+x.Remedy, "\n\x1b") {
				t.Errorf("control characters: %+v", x)
			}
		}
		for _, n := range r.Classes {
			sum += n
		}
		if sum != r.Total() || r.Line() == "" {
			t.Errorf("%d in classes, %d in all", sum, r.Total())
		}
	})
}

// Clients that print a mirror's whole error body (crane and others that use go-containerregistry or ORAS) print the failure's id.
func TestOwnBodies(t *testing.T) {
	t.Parallel()
	const (
		end    = "; failure 32da5e78, https://github.com/registrymirror/mirror/blob/main/docs/failures/tag-not-found.md"
		body   = "MANIFEST_UNKNOWN: ghcr.io has no acme/app:2; check the image's name and tag [32da5e78]" + end
		digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	)
	for _, tt := range []struct{ line, image string }{
		{"Error: GET http://mirror.test:5000/v2/ghcr.io/acme/app/manifests/2: " + body, "ghcr.io/acme/app:2"},
		{"GET http://mirror.test:5000/v2/acme/app/manifests/2?ns=ghcr.io: " + body, "ghcr.io/acme/app:2"},
		{"GET http://mirror.test:5000/v2/ghcr.io/acme/app/manifests/" + digest + ": " + body, "ghcr.io/acme/app@" + digest},
		{"GET http://mirror.test:5000/v2/acme/app/manifests/2: " + body, ""}, // the default upstream's, whichever that is
		{"GET http://mirror.test:5000/v2/ghcr.io/acme/app/blobs/" + digest + ": " + body, ""},
		{`time="2026-11-23T12:00:00Z" msg="step failed: ` + body + `"`, ""},
	} {
		r, err := symptom.Read(strings.NewReader(tt.line + "\n"))
		if err != nil || len(r.Failures) != 1 {
			t.Errorf("%s: %+v, %v", tt.line, r, err)
			continue
		}
		f := r.Failures[0]
		f.Text, f.First, f.Last = "", time.Time{}, time.Time{}
		want := symptom.Failure{
			Reason: diagnose.TagNotFound, Class: diagnose.ClassMissing, Summary: "ghcr.io has no acme/app:2",
			Remedy: "check the image's name and tag", Host: strings.TrimSuffix(tt.image[:max(0, strings.Index(tt.image, "/"))], "/"),
			Page: "docs/failures/tag-not-found.md", Image: tt.image, ID: "32da5e78", Count: 1,
		}
		if diff := cmp.Diff(want, f); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.line, diff)
		}
	}
	if r := read(t, "see https://github.com/registrymirror/mirror/blob/main/docs/failures/tag-not-found.md\n"); len(r.Failures) > 0 {
		t.Errorf("a link alone: %+v", r.Failures)
	}
	// A link to a page that does not exist gives no reason.
	r, err := symptom.Read(strings.NewReader("x; failure 32da5e78, https://x.test/docs/failures/all-is-well.md\n"))
	if err != nil || len(r.Failures) != 1 || r.Failures[0].Reason != diagnose.Unknown || r.Failures[0].ID != "32da5e78" {
		t.Errorf("%+v, %v", r, err)
	}
}
