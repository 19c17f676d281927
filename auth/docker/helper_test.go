package docker_test

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/auth/docker"
)

const canary = "canary-7f3a9c2e"

func shown(c auth.Credential) string {
	return c.Username + ":" + c.Password.Reveal() + ":" + c.Identity.Reveal()
}

func TestHelper(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, host, key string
		say             *say // nil: it knows nothing
		want            string
		err             string // part of the error; empty: none
	}{
		{name: "login", host: "h1.example", say: &say{Out: `{"ServerURL":"x","Username":"bot","Secret":"pw"}`}, want: "bot:pw:"},
		{name: "refresh token", host: "h2.example", say: &say{Out: `{"Username":"<token>","Secret":"rt"}`}, want: "::rt"},
		{
			name: "Docker Hub", host: "docker.io", key: "https://index.docker.io/v1/",
			say: &say{Out: `{"Username":"hub","Secret":"pw"}`}, want: "hub:pw:",
		},
		{name: "knows nothing", host: "h3.example", err: "docker-credential-test has no login for h3.example"},
		{
			name: "fails on standard error", host: "h4.example", say: &say{Err: "\nvault is sealed\nmore\n", Code: 3},
			err: "docker-credential-test: exit status 3: vault is sealed",
		},
		{
			name: "fails on standard output", host: "h5.example", say: &say{Out: "no gpg key", Code: 1},
			err: "exit status 1: no gpg key",
		},
		{
			name: "prints a credential and fails", host: "h6.example", say: &say{Out: `{"Secret":"` + canary + `"}`, Code: 1},
			err: "exit status 1",
		},
		{name: "garbage", host: "h7.example", say: &say{Out: canary}, err: "its output is not JSON, at byte 1"},
		{
			name: "wrong types", host: "h8.example", say: &say{Out: `{"Username":"x","Secret":["` + canary + `"]}`},
			err: `has the wrong type of value in "Secret"`,
		},
		{name: "no secret", host: "h9.example", say: &say{Out: `{"Username":"` + canary + `"}`}, err: "has no Secret"},
		{name: "too much", host: "h10.example", say: &say{Out: strings.Repeat("a", 3<<20)}, err: "printed more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			key := tt.key
			if key == "" {
				key = tt.host
			}
			if tt.say != nil {
				teach(t, key, *tt.say)
			}
			h := docker.NewHelper(docker.Helper{Program: "docker-credential-test", Host: tt.host}, auth.Refresh{Name: "pass"})
			c, err := h.Credential(t.Context())
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), "credential pass") {
					t.Fatalf("error %v, want one with %q", err, tt.err)
				}
				if strings.Contains(err.Error(), canary) {
					t.Errorf("the error quotes the output: %v", err)
				}
				if st := h.Status(); st.State != auth.StateFailing || st.LastError == "" {
					t.Errorf("status %+v", st)
				}
				return
			}
			if err != nil || shown(c) != tt.want || c.Name != "pass" {
				t.Fatalf("credential %s %q, %v, want %s", c.Name, shown(c), err, tt.want)
			}
			want := auth.Status{Name: "pass", Kind: "helper", For: tt.host, State: auth.StateOK}
			got := h.Status()
			if got.Since.IsZero() {
				t.Error("nothing says since when it is so")
			}
			got.LastRefresh, got.Since = time.Time{}, time.Time{}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("status (-want +got)\n%s", diff)
			}
		})
	}
}

func TestHelperThatIsNotThere(t *testing.T) {
	t.Parallel()
	h := docker.NewHelper(docker.Helper{Program: "docker-credential-nowhere", Host: "x.example"}, auth.Refresh{Name: "pass"})
	_, err := h.Credential(t.Context())
	if err == nil || !strings.Contains(err.Error(), "docker-credential-nowhere: executable file not found") {
		t.Errorf("error %v", err)
	}
}

// A helper that hangs is ended, with the processes that it has started.
func TestHelperThatHangs(t *testing.T) {
	t.Parallel()
	teach(t, "hang.example", say{Hang: true})
	var b []byte
	for limit := 2 * time.Second; ; limit *= 2 {
		h := docker.NewHelper(docker.Helper{
			Program: "docker-credential-test", Host: "hang.example",
		}, auth.Refresh{Name: "pass", Timeout: limit})
		_, err := h.Credential(t.Context())
		if err == nil || !strings.Contains(err.Error(), "docker-credential-test: no answer within "+limit.String()) {
			t.Fatalf("error %v", err)
		}
		if b, err = os.ReadFile(fileOf("hang.example") + ".child"); err == nil {
			break
		}
		if limit > 16*time.Second {
			t.Fatalf("the helper had not started its child: %v", err)
		}
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); !gone(pid); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("process %d outlived the helper", pid)
		}
	}
}

// gone reports whether a process has ended, even where its parent has not waited for it.
func gone(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return true
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(b), ") Z ")
}

// A program that prints its environment when it fails does not show our secrets.
func TestHelperShowsItsEnvironment(t *testing.T) {
	t.Parallel()
	teach(t, "env.example", say{Err: "env: VAULT_TOKEN=" + vaultToken + " REGION=eu-west-1", Code: 1})
	h := docker.NewHelper(docker.Helper{Program: "docker-credential-test", Host: "env.example"}, auth.Refresh{Name: "pass"})
	_, err := h.Credential(t.Context())
	if err == nil || !strings.Contains(err.Error(), "VAULT_TOKEN=*** REGION=eu-west-1") {
		t.Errorf("error %v", err)
	}
}

func TestHelperIsAskedAgainAfterARefusal(t *testing.T) {
	t.Parallel()
	teach(t, "again.example", say{Out: `{"Username":"bot","Secret":"one"}`})
	h := docker.NewHelper(docker.Helper{Program: "docker-credential-test", Host: "again.example"}, auth.Refresh{Name: "pass"})
	one, err := h.Credential(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	teach(t, "again.example", say{Out: `{"Username":"bot","Secret":"two"}`})
	if c, err := h.Credential(t.Context()); err != nil || shown(c) != "bot:one:" {
		t.Errorf("%q, %v; want the one that is still fresh", shown(c), err)
	}
	two, err := h.Renew(t.Context(), one)
	if err != nil || shown(two) != "bot:two:" {
		t.Errorf("after a refusal: %q, %v", shown(two), err)
	}
	if c, err := h.Renew(t.Context(), one); err != nil || shown(c) != "bot:two:" { // a slow pull with the old one
		t.Errorf("after a late refusal: %q, %v", shown(c), err)
	}
	if n := len(asked(t, "again.example")); n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
}
