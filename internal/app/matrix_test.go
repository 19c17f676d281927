package app_test

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/warm"
)

// table is a part of the matrix of access: each way in which a client can ask for one kind of image. Its cells are what is expected.
// None of it is computed.
type table struct {
	mode  string // of the upstream: a key of modes
	image string // the folder of the image's repositories at the registry: all of it is public, or none
	ns    bool   // clients name the registry by ns, and not the mirror
	// cells has a line for each way of asking, with a cell for each client of the first line. A cell is the status, the reason of a
	// refusal, and how many questions about content the registry got for it, if any; ~ is any number, where an earlier refusal may still
	// be remembered. Where the order matters there are two, with a slash: before anything is cached, and after another client has pulled
	// the image.
	cells string
}

// cell is one of them, for one order. Each has repositories and content of its own, so none can change another one.
type cell struct {
	*table
	row, who, want string
	filled         bool // another client has pulled the image, and so has this one while it had the right
	repo           string
	other          string // another repository that names the image's layer
	built          origin.Built
}

// ordered are the ways of asking for which it could matter that another client was first. In all others it was.
var ordered = []string{"tag", "tag HEAD", "digest", "blob", "blob HEAD", "range", "referrers", "tags/list", "named elsewhere", "also elsewhere"}

// matrix is a mirror with the clients of the tables.
type matrix struct {
	*running
	o      *origin.Origin
	http   *http.Client
	logins map[string]string // what each client sends
	images int64             // that were made: each has content of its own
}

// mode is a way to set up the upstream.
type mode struct {
	upstream string // settings
	rules    [2]string
	others   map[string]string // by the image's folder: where the other repositories are
	refused  string            // a folder of which nothing is ever served
	own      bool              // clients have logins at the registry, and none at the mirror
}

var modes = map[string]mode{
	"public": {
		upstream: "", others: map[string]string{"public": "public", "private": "private"}, refused: "private",
	},
	"public with credentials": {
		upstream: ", credentials: [{name: hub, username: bot, passwordFile: pass}]",
		others:   map[string]string{"public": "public", "private": "private"}, refused: "private",
	},
	"rules": {
		upstream: ", access: rules, credentials: [{name: hub, username: bot, passwordFile: pass}]",
		rules: [2]string{
			"rules: [{who: [alice, carol, dave, erin], pull: [NAME/private/*]}, {who: [bob, erin], pull: [NAME/theirs/*]}]\n",
			"rules: [{who: [alice, carol, erin], pull: [NAME/private/*]}, {who: [bob, erin], pull: [NAME/theirs/*]}]\n",
		},
		others: map[string]string{"private": "theirs"},
	},
	// What a registry says of a login counts for no time at all: each request is a question.
	"client": {
		upstream: ", access: client, clientLogins: {maxAge: 0s, staleIfError: 0s}",
		others:   map[string]string{"public": "public", "private": "theirs"}, own: true,
	},
	"client, remembered": {upstream: ", access: client", others: map[string]string{"private": "theirs"}, own: true},
}

// people are the clients: A has a right to the image, B to other repositories. Erin has both, and pulls before the others do. After both
// have pulled, the token or password of the one that is revoked is removed, and the other one loses its right.
var people = map[string]string{"A": "alice", "B": "bob", "revoked": "carol", "no right left": "dave", "before": "erin"}

// TestAccess plays the matrix.
func TestAccess(t *testing.T) {
	t.Parallel()
	for name, m := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newMatrix(t, m.own)
			dir := t.TempDir()
			write(t, filepath.Join(dir, "pass"), secret)
			conf := func(when int) *config.Config {
				var tokens strings.Builder
				tokens.WriteString("tokens:\n")
				for who, name := range people {
					if when == 1 && who == "revoked" {
						continue
					}
					tokens.WriteString(identity.TokenEntry{Name: name, SHA256: digest.FromString(strings.TrimPrefix(x.logins[who], "Bearer ")).Encoded()}.Line())
				}
				write(t, filepath.Join(dir, "tokens.yaml"), tokens.String())
				clients := "clients: {tokens: tokens.yaml}\n"
				if m.own {
					clients = ""
				}
				return parse(t, dir, fmt.Sprintf("  %s: {endpoints: [%q], tags: {maxAge: 0s}%s}\n%s", nameOf(x.o), x.o.URL(), m.upstream,
					clients+strings.ReplaceAll(m.rules[when], "NAME", nameOf(x.o))))
			}
			x.running = run(t, conf(0))
			var cells, last []*cell
			for i := range tables {
				if tables[i].mode == name {
					cells = append(cells, x.cellsOf(t, &tables[i])...)
				}
			}
			if len(cells) == 0 {
				t.Fatal("no cells")
			}
			x.warm(t, cells)
			each(cells, func(c *cell) { x.prepare(t, c) })
			if m.own {
				x.o.SetUser(people["revoked"], origin.User{})
				x.o.SetUser(people["no right left"], origin.User{Password: passwordOf("no right left")})
			} else if err := x.Reload(conf(1)); err != nil {
				t.Fatal(err)
			}
			for _, c := range cells {
				switch {
				case strings.HasPrefix(c.row, "stale"):
					last = append(last, c)
				case !strings.HasPrefix(c.row, "joined"):
					x.check(t, c)
				}
			}
			x.joins(t, cells)
			x.o.Down()
			for _, c := range last {
				x.check(t, c)
			}
		})
	}
}

// each calls a function for all cells, some at a time: most of it is waiting for a disk.
func each(cells []*cell, do func(*cell)) {
	var all sync.WaitGroup
	const workers = 16
	for w := range workers {
		all.Go(func() {
			for i := w; i < len(cells); i += workers {
				do(cells[i])
			}
		})
	}
	all.Wait()
}

// passwordOf is that of a client at the registry.
func passwordOf(who string) string { return people[who] + "-at-the-registry" }

// newMatrix starts a registry, and gives clients their logins: at the registry itself if they have their own.
func newMatrix(t *testing.T, own bool) *matrix {
	t.Helper()
	users := make(map[string]origin.User)
	for who, name := range people {
		users[name] = origin.User{Password: passwordOf(who), Reads: func(repo string) bool {
			return who == "before" || strings.HasPrefix(repo, "theirs/") == (who == "B")
		}}
	}
	o := origin.Start(t, origin.Options{Auth: origin.Auth{
		Kind: "bearer", Username: "bot", Password: secret, Users: users, Anonymous: true,
		Private: func(repo string) bool { return !strings.HasPrefix(repo, "public/") },
	}})
	x := &matrix{o: o, http: &http.Client{Transport: &http.Transport{}}, logins: make(map[string]string)}
	t.Cleanup(x.http.CloseIdleConnections)
	for who, name := range people {
		token, _ := identity.NewToken()
		x.logins[who] = "Bearer " + token
		if own {
			x.logins[who] = basic(name, passwordOf(who))
		}
	}
	return x
}

// cellsOf reads a table.
func (x *matrix) cellsOf(t *testing.T, tb *table) []*cell {
	t.Helper()
	var list []*cell
	var clients []string
	running := x.image(tb.image+"/joined-"+fmt.Sprint(tb.ns), 5<<20)
	for line := range strings.Lines(tb.cells) {
		fields := strings.Split(strings.TrimSpace(line), "|")
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		if len(fields) == 1 && fields[0] == "" {
			continue
		}
		if clients == nil {
			clients = fields[1:]
			continue
		}
		if len(fields) != len(clients)+1 {
			t.Fatalf("%d cells for %d clients: %s", len(fields)-1, len(clients), line)
		}
		row := fields[0]
		for i, who := range clients {
			first, then, two := strings.Cut(fields[i+1], " / ")
			if !two {
				then = first
			}
			for _, filled := range []bool{false, true} {
				if !filled && !slices.Contains(ordered, row) {
					continue
				}
				c := &cell{table: tb, row: row, who: who, want: first, filled: filled}
				if filled {
					c.want = then
				}
				id := fmt.Sprintf("%s-%t-%d-%t", strings.NewReplacer(" ", "-", "/", "-").Replace(strings.ToLower(row)), tb.ns, i, filled)
				c.repo, c.other = tb.image+"/"+id, modes[tb.mode].others[tb.image]+"/other-"+id
				if strings.HasPrefix(row, "joined") {
					c.repo, c.built = tb.image+"/joined-"+fmt.Sprint(tb.ns), running
				} else {
					c.built = x.image(c.repo, 4<<10)
				}
				list = append(list, c)
			}
		}
	}
	return list
}

// image makes an image that no other repository has anything of.
func (x *matrix) image(repo string, layer int64) origin.Built {
	x.images++
	return x.o.AddImage(repo, "1", origin.Image{Layers: []int64{layer}, Seed: x.images})
}

// layer is the blob that a cell is about.
func (c *cell) layer() oci.Descriptor { return c.built.Layers[0][0] }

// warm has the mirror fetch the images of some cells ahead.
func (x *matrix) warm(t *testing.T, cells []*cell) {
	t.Helper()
	var images []string
	for _, c := range cells {
		if c.row == "warmed" {
			images = append(images, c.repo+":1")
		}
	}
	x.warmed(t, x.o, warm.Request{Images: images})
}

// prepare does what has happened before the client of a cell asks.
func (x *matrix) prepare(t *testing.T, c *cell) {
	t.Helper()
	x.o.AddReferrer(c.repo, c.built.Root, "application/vnd.example.sbom")
	must := func(got answer) {
		t.Helper()
		if got.status != 200 && c.image != modes[c.mode].refused {
			t.Errorf("%s: before %s asks: %+v", c.row, c.who, got)
		}
	}
	if strings.Contains(c.row, "elsewhere") { // a manifest there names it
		x.o.AddManifest(c.other, "1", c.built.Root.MediaType, c.built.Bytes(c.built.Root.Digest))
		if strings.HasPrefix(c.row, "also") {
			x.o.AddBlob(c.other, c.built.Bytes(c.layer().Digest))
		}
		must(x.ask(t, c, "before", "GET", c.other, "manifests/1"))
	}
	if !c.filled || c.row == "warmed" {
		return
	}
	who := []string{"before"}
	if c.who == "revoked" || c.who == "no right left" {
		who = append(who, c.who)
	}
	for _, name := range who {
		paths := []string{"manifests/1", "blobs/" + c.built.Configs[0].Digest.String(), "referrers/" + c.built.Root.Digest.String(), "tags/list"}
		if !strings.HasPrefix(c.row, "joined") {
			paths = append(paths, "blobs/"+c.layer().Digest.String())
		}
		for _, path := range paths {
			must(x.ask(t, c, name, "GET", c.repo, path))
		}
	}
}

// answer is what a client gets.
type answer struct {
	status int
	reason string
	warned bool
	body   []byte
}

// send asks for a path of a repository.
func (x *matrix) send(t *testing.T, c *cell, who, method, repo, path string, header ...string) (answer, *http.Response) {
	t.Helper()
	url := "http://" + x.Addr().String() + "/v2/" + nameOf(x.o) + "/" + repo + "/" + path
	if c.ns {
		url = "http://" + x.Addr().String() + "/v2/" + repo + "/" + path + "?ns=" + nameOf(x.o)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if login := x.logins[who]; login != "" {
		req.Header.Set("Authorization", login)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := x.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	reason, _, _ := strings.Cut(res.Header.Get("Mirror-Reason"), ";")
	return answer{status: res.StatusCode, reason: reason, warned: res.Header.Get("Warning") != ""}, res
}

// ask is send, with the body.
func (x *matrix) ask(t *testing.T, c *cell, who, method, repo, path string, header ...string) answer {
	t.Helper()
	got, res := x.send(t, c, who, method, repo, path, header...)
	defer res.Body.Close()
	var err error
	if got.body, err = io.ReadAll(res.Body); err != nil {
		t.Errorf("%s: %s %s of %s for %s: %v", c.row, method, path, repo, who, err)
	}
	return got
}

// questions is how many requests about content of some repositories the registry has got.
func (x *matrix) questions(repos ...string) int {
	n := 0
	for _, q := range x.o.Requests() {
		if slices.Contains(repos, q.Repo) && q.Kind != origin.KindToken {
			n++
		}
	}
	return n
}

// asks is the request of a cell.
func (c *cell) asks() (method, repo, path string, header []string) {
	blob := "blobs/" + c.layer().Digest.String()
	switch c.row {
	case "tag", "warmed", "stale":
		return "GET", c.repo, "manifests/1", nil
	case "tag HEAD":
		return "HEAD", c.repo, "manifests/1", nil
	case "digest", "stale digest":
		return "GET", c.repo, "manifests/" + c.built.Root.Digest.String(), nil
	case "blob", "stale blob", "joined", "warmed blob":
		return "GET", c.repo, blob, nil
	case "blob HEAD":
		return "HEAD", c.repo, blob, nil
	case "range":
		return "GET", c.repo, blob, []string{"Range", "bytes=100-199"}
	case "referrers":
		return "GET", c.repo, "referrers/" + c.built.Root.Digest.String(), nil
	case "tags/list":
		return "GET", c.repo, "tags/list", nil
	case "named elsewhere", "also elsewhere", "joined elsewhere":
		return "GET", c.other, blob, nil
	}
	panic("no way of asking is called " + c.row)
}

// check asks for a cell and compares the answer.
func (x *matrix) check(t *testing.T, c *cell) {
	t.Helper()
	method, repo, path, header := c.asks()
	x.o.ClearRequests()
	got := x.ask(t, c, c.who, method, repo, path, header...)
	x.compare(t, c, got)
	if got.status >= 300 {
		return
	}
	want := string(c.built.Bytes(c.layer().Digest))
	switch {
	case method == "HEAD":
		want = ""
	case c.row == "range":
		want = want[100:200]
	case strings.HasPrefix(path, "manifests/"):
		want = string(c.built.Bytes(c.built.Root.Digest))
	case strings.HasPrefix(path, "referrers/"):
		if !strings.Contains(string(got.body), "vnd.example.sbom") {
			t.Errorf("%s for %s: %s", c.row, c.who, got.body)
		}
		return
	case path == "tags/list":
		want = `["1"]`
		if strings.Contains(string(got.body), want) {
			return
		}
	}
	if string(got.body) != want {
		t.Errorf("%s for %s: %d bytes, want %d", c.row, c.who, len(got.body), len(want))
	}
	if c.row == "stale" && !got.warned {
		t.Errorf("stale for %s: no Warning", c.who)
	}
}

func (x *matrix) compare(t *testing.T, c *cell, a answer) {
	t.Helper()
	got := fmt.Sprint(a.status)
	if a.reason != "" && a.status >= 300 {
		got += " " + a.reason
	}
	want, some := strings.CutSuffix(c.want, " ~")
	if n := x.questions(c.repo, c.other); n > 0 && !some {
		got += fmt.Sprint(" ", n)
	}
	if got != want {
		t.Errorf("%s, %s image, ns %t, after others %t: %s for %s: %s, want %s", c.mode, c.image, c.ns, c.filled, c.row, c.who, got, c.want)
	}
}

// joins lets a client begin the download of a layer and stops it in the middle. All others then ask for that layer.
func (x *matrix) joins(t *testing.T, cells []*cell) {
	t.Helper()
	byRepo := make(map[string][]*cell)
	for _, c := range cells {
		if strings.HasPrefix(c.row, "joined") {
			byRepo[c.repo] = append(byRepo[c.repo], c)
		}
	}
	for _, list := range byRepo {
		c := list[0]
		layer := c.layer()
		gate := origin.NewGate()
		remove := x.o.Script(origin.Rule{
			Kind: origin.KindBlob, Method: "GET", Repo: c.repo, Ref: layer.Digest.String(), Do: origin.Fault{Stall: &origin.Stall{At: 1 << 20, Gate: gate}},
		})
		x.o.ClearRequests()
		first, res := x.send(t, c, "before", "GET", c.repo, "blobs/"+layer.Digest.String())
		running := []*http.Response{res}
		if first.status == 200 {
			<-gate.Arrived()
		} else if c.image != modes[c.mode].refused {
			t.Fatalf("the first client: %+v", first)
		}
		for _, c := range list {
			x.o.ClearRequests()
			method, repo, path, header := c.asks()
			got, res := x.send(t, c, c.who, method, repo, path, header...)
			x.compare(t, c, got)
			running = append(running, res)
		}
		gate.Open()
		for i, res := range running {
			b, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || res.StatusCode == 200 && digest.FromBytes(b) != layer.Digest {
				t.Errorf("%s: client %d of a running download: %d bytes, %v", c.repo, i, len(b), err)
			}
		}
		remove()
	}
}
