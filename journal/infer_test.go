package journal_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
)

const containerd = "containerd/2.1.4"

// indexDocument has a manifest for each platform; the first is child.
func indexDocument(architectures ...string) []byte {
	s := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[`
	for i, a := range architectures {
		if i > 0 {
			s += ","
		}
		s += fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":1,"digest":"sha256:%d%s",`+
			`"platform":{"os":"linux","architecture":%q}}`, i+2, child[len("sha256:")+1:], a)
	}
	return []byte(s + `,{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":1,"digest":"` + config +
		`","platform":{"os":"unknown","architecture":"unknown"}}]}`)
}

// got is a GET of an index by an agent.
func got(agent string, at oci.Digest, architectures ...string) func(*journal.Request) {
	return func(r *journal.Request) {
		r.UserAgent, r.Index, r.Ref.Digest = agent, indexDocument(architectures...), at
	}
}

func by(agent string) func(*journal.Request) { return func(r *journal.Request) { r.UserAgent = agent } }

func TestPlatformMissing(t *testing.T) {
	t.Parallel()
	const other = "sha256:5555555555555555555555555555555555555555555555555555555555555555"
	docker := "docker/24.0.7 go/go1.20 git-commit/x kernel/6 os/linux arch/amd64 UpstreamClient(Docker-Client/24)"
	learn := func(j *journal.Journal) { // node-1 has chosen amd64 once
		j.Observe(asked(oci.KindManifest, "1.26", got(containerd, index, "amd64", "arm64")))
		j.Observe(asked(oci.KindManifest, child, by(containerd)))
		pass(2 * time.Minute)
	}
	nodes := func(j *journal.Journal, list ...string) { j.Platforms(list) }
	looks := func(j *journal.Journal, agent string, architectures ...string) {
		j.Observe(asked(oci.KindManifest, "1.27", got(agent, other, architectures...)))
	}
	for _, tt := range []struct {
		name string
		do   func(j *journal.Journal)
		want []string
	}{
		{"as the configuration says of all nodes", func(j *journal.Journal) {
			nodes(j, "linux/amd64")
			looks(j, containerd, "arm64")
		}, []string{"platform-missing linux/amd64 docker.io/library/nginx:1.27 has linux/arm64, and nothing for linux/amd64, which your nodes are"}},
		{"of some", func(j *journal.Journal) {
			nodes(j, "linux/amd64", "linux/arm64", "linux/riscv64")
			looks(j, containerd, "arm64", "s390x")
		}, []string{"platform-missing linux/amd64, linux/riscv64 docker.io/library/nginx:1.27 has linux/arm64, linux/s390x, and nothing for " +
			"linux/amd64 and linux/riscv64, which some of your nodes are"}},
		{"there is one for all nodes", func(j *journal.Journal) {
			nodes(j, "linux/amd64", "linux/arm64")
			looks(j, containerd, "arm64", "amd64")
		}, nil},
		{"what the agent says counts more", func(j *journal.Journal) {
			nodes(j, "linux/amd64", "linux/arm64")
			looks(j, docker, "amd64")
		}, nil},
		{"so does what was learnt", func(j *journal.Journal) {
			learn(j)
			nodes(j, "linux/amd64", "linux/arm64")
			looks(j, containerd, "amd64")
		}, nil},
		{"of nodes behind one address", func(j *journal.Journal) {
			learn(j)
			j.Observe(asked(oci.KindManifest, "1.25", got(containerd, oci.Digest("sha256:6"+other[8:]), "arm64")))
			j.Observe(asked(oci.KindManifest, child, by(containerd)))
			pass(2 * time.Minute)
			nodes(j, "linux/amd64", "linux/arm64")
			looks(j, containerd, "amd64")
		}, []string{"platform-missing linux/arm64 docker.io/library/nginx:1.27 has linux/amd64, and nothing for linux/arm64, which some of your nodes are"}},
		{"a tool that looks, whatever the nodes are", func(j *journal.Journal) {
			nodes(j, "linux/amd64")
			looks(j, "go-containerregistry/v0.20", "arm64")
		}, nil},
		{"another variant", func(j *journal.Journal) {
			nodes(j, "linux/arm/v6")
			looks(j, containerd, "arm")
		}, []string{"platform-missing linux/arm/v6 docker.io/library/nginx:1.27 has linux/arm, and nothing for linux/arm/v6, which your nodes are"}},
		{"a lower variant", func(j *journal.Journal) {
			nodes(j, "linux/arm/v8")
			looks(j, containerd, "arm")
		}, nil},
		{"any variant", func(j *journal.Journal) {
			nodes(j, "linux/arm", "linux/arm64/v8")
			looks(j, containerd, "arm", "arm64")
		}, nil},
		{"a platform that is no longer configured", func(j *journal.Journal) {
			nodes(j, "linux/amd64")
			nodes(j)
			looks(j, containerd, "arm64")
		}, nil},
		{"it goes on, whatever the nodes are", func(j *journal.Journal) {
			nodes(j, "linux/amd64", "linux/arm64")
			looks(j, containerd, "arm64")
			pass(15 * time.Second)
			j.Observe(asked(oci.KindBlob, layer, by(containerd)))
		}, nil},
		{"learnt from another image", func(j *journal.Journal) {
			learn(j)
			j.Observe(asked(oci.KindManifest, "1.27", got(containerd, other, "arm64")))
		}, []string{"platform-missing linux/amd64 docker.io/library/nginx:1.27 has linux/arm64, and nothing for linux/amd64, which node-1 is"}},
		{"as the agent says", func(j *journal.Journal) {
			j.Observe(asked(oci.KindManifest, "1.27", got(docker, other, "arm64", "s390x")))
		}, []string{"platform-missing linux/amd64 docker.io/library/nginx:1.27 has linux/arm64, linux/s390x, and nothing for linux/amd64, which node-1 is"}},
		{"there is one", func(j *journal.Journal) {
			j.Observe(asked(oci.KindManifest, "1.27", got(docker, other, "amd64")))
		}, nil},
		{"nothing is known of the client", func(j *journal.Journal) {
			j.Observe(asked(oci.KindManifest, "1.27", got(containerd, other, "arm64")))
		}, nil},
		{"a cluster behind one address", func(j *journal.Journal) {
			learn(j)
			j.Observe(asked(oci.KindManifest, "1.25", got(containerd, other, "arm64")))
			j.Observe(asked(oci.KindManifest, child, by(containerd)))
			pass(2 * time.Minute)
			j.Observe(asked(oci.KindManifest, "1.27", got(containerd, oci.Digest("sha256:6"+other[8:]), "s390x")))
		}, nil},
		{"a tool that looks", func(j *journal.Journal) {
			learn(j)
			j.Observe(asked(oci.KindManifest, "1.27", got("go-containerregistry/v0.20", other, "arm64")))
		}, nil},
		{"it goes on", func(j *journal.Journal) {
			learn(j)
			j.Observe(asked(oci.KindManifest, "1.27", got(containerd, other, "arm64")))
			pass(5 * time.Second)
			j.Observe(asked(oci.KindBlob, layer, by(containerd)))
		}, nil},
		{"it goes on late", func(j *journal.Journal) {
			learn(j)
			j.Observe(asked(oci.KindManifest, "1.27", got(containerd, other, "arm64")))
			pass(30 * time.Second)
			j.Observe(asked(oci.KindBlob, layer, by(containerd)))
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			record := journal.NewRecord(nil, nil)
			var pulls []journal.Pull
			bubble(t, journal.Options{Record: record, OnPull: func(p journal.Pull) { pulls = append(pulls, p) }},
				func(j *journal.Journal, _ *lines) {
					tt.do(j)
					pass(11 * time.Second)
					list := record.Failures(journal.Filter{})
					var got []string
					for _, f := range list {
						got = append(got, string(f.Reason)+" "+f.Platform+" "+f.Summary)
					}
					if diff := cmp.Diff(tt.want, got); diff != "" {
						t.Error(diff)
					}
				})
			if last := pulls[len(pulls)-1]; (last.Outcome == journal.Failed) != (tt.want != nil) {
				t.Errorf("the pull ended as %s", last.Outcome)
			}
		})
	}
}

func TestClientsThatLeave(t *testing.T) {
	t.Parallel()
	left := func(agent string, took time.Duration, status int) func(*journal.Request) {
		return func(r *journal.Request) {
			r.UserAgent, r.Took, r.Status, r.Aborted, r.Bytes, r.Size = agent, took, status, true, 12_000_000, 1_200_000_000
		}
	}
	for _, tt := range []struct {
		name  string
		blobs func() []journal.Request
		want  string
	}{
		{"early", func() []journal.Request {
			return []journal.Request{asked(oci.KindBlob, layer, left(containerd, 10*time.Second, 200))}
		}, "client-gone: node-1 left after 12.0 MB of 1200.0 MB of a layer of docker.io/library/nginx:1.27, in 10s [layer " + layer + "]"},
		{"too slow", func() []journal.Request {
			return []journal.Request{asked(oci.KindBlob, layer, left(containerd, 2*time.Minute, 200))}
		}, "too-slow: node-1 left after 12.0 MB of 1200.0 MB of a layer of docker.io/library/nginx:1.27, in 2m0s " +
			"[layer " + layer + " 0.1 MB a second at that rate the layer takes 3h20m0s " +
			"containerd ends a pull that gets no byte for image_pull_progress_timeout, 5m unless it is set]"},
		{"and comes back", func() []journal.Request {
			return []journal.Request{
				asked(oci.KindBlob, layer, left(containerd, 10*time.Second, 200)),
				asked(oci.KindBlob, layer, func(r *journal.Request) { r.Status, r.UserAgent = 206, containerd }),
			}
		}, ""},
		{"a lazy puller", func() []journal.Request {
			return []journal.Request{asked(oci.KindBlob, layer, left(containerd, 10*time.Second, 206))}
		}, ""},
		{"a tool", func() []journal.Request {
			return []journal.Request{asked(oci.KindBlob, layer, left("crane/1", 10*time.Second, 200))}
		}, ""},
		{"since another layer failed", func() []journal.Request {
			return []journal.Request{
				asked(oci.KindBlob, layer, left(containerd, 10*time.Second, 200)),
				asked(oci.KindBlob, config, failing(diagnose.UpstreamError, "aaaaaaaa")),
			}
		}, "upstream-error: it broke []"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			record := journal.NewRecord(nil, nil)
			bubble(t, journal.Options{Record: record}, func(j *journal.Journal, _ *lines) {
				j.Observe(asked(oci.KindManifest, "1.27", by(containerd)))
				for _, r := range tt.blobs() {
					j.Observe(r)
				}
				pass(4 * time.Minute)
				got := ""
				list := record.Failures(journal.Filter{})
				for _, f := range list {
					got += fmt.Sprint(f.Reason, ": ", f.Summary, " ", f.Evidence)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// A client that the mirror's own stop cuts off has not left.
func TestStopIsNotLeaving(t *testing.T) {
	t.Parallel()
	record := journal.NewRecord(nil, nil)
	bubble(t, journal.Options{Record: record}, func(j *journal.Journal, _ *lines) {
		j.Observe(asked(oci.KindManifest, "1.27", by(containerd)))
		j.Observe(asked(oci.KindBlob, layer, func(r *journal.Request) { r.UserAgent, r.Aborted, r.Size = containerd, true, 10 }))
		synctest.Wait()
	})
	if got := shown(t, record, journal.Filter{}); len(got) > 0 {
		t.Errorf("recorded: %s", got)
	}
}
