package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
)

// addressScenes have a public registry redirect to addresses that are not public.
func addressScenes() []scene {
	return []scene{{line: 20, name: "redirects-to-inner-addresses", short: true, play: playAddresses}}
}

// insideVariable says that this process is in the network that playAddresses has made.
const insideVariable = "ATTACK_INSIDE"

// publicAddress is where the scene's registry is, and otherPublic where it may redirect to. Neither leaves the network
// namespace.
const (
	publicAddress = "9.9.9.9"
	otherPublic   = "[2606:4700::1111]"
)

// innerAddresses must not be dialled for a public registry.
var innerAddresses = []string{
	"127.0.0.1", "169.254.169.254", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "0.0.0.0", "198.18.0.1", "192.0.0.8",
	"240.0.0.1", "224.0.0.1", "192.88.99.1",
	"[::1]", "[::]", "[fe80::1]", "[fd00:ec2::254]", "[fec0::1]", "[ff02::1]",
	"[::ffff:169.254.169.254]", "[::ffff:10.0.0.1]", // mapped
	"[::169.254.169.254]",                                                                                           // compatible
	"[::ffff:0:a9fe:a9fe]",                                                                                          // SIIT
	"[64:ff9b::a9fe:a9fe]", "[64:ff9b:1:a9fe:a9:fe00::]", "[64:ff9b:1::a9fe:a9fe]", "[64:ff9b:1:ffff:ff7f:0:100:0]", // NAT64
	"[2002:a9fe:a9fe::1]", "[2002:7f00:1::1]", // 6to4
	"[2001:0:a9fe:a9fe::1]", "[2001:0:0:0:0:0:5601:5601]", // Teredo
	"[fe80::5efe:a9fe:a9fe]", "[2001:db8::1]", "[100::1]", "[2001:10::1]", "[5f00::1]", "[3fff::1]",
}

// playAddresses runs itself in a network of its own, in which every address is this machine.
func playAddresses(ctx context.Context, s *stage) error {
	if os.Getenv(insideVariable) != "" {
		return playInside(ctx, s)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "unshare", "--net", self, "-mirror", s.mirror, "-json", "-run", "^20 redirects")
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && out.Len() == 0 { // its exit code repeats what the figures say
		return fmt.Errorf("in a network of its own: %w: %s", err, errs.String())
	}
	lines := bufio.NewScanner(&out)
	for lines.Scan() {
		var f figure
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
			return err
		}
		s.figures = append(s.figures, f)
	}
	return lines.Err()
}

// playInside makes every address local, listens on all, and counts what is dialled.
func playInside(ctx context.Context, s *stage) error {
	for _, args := range []string{
		"link set lo up", "route add local 0.0.0.0/0 dev lo", "-6 route add local ::/0 dev lo",
	} {
		if r, err := proc.Exec(ctx, proc.Options{}, "ip", strings.Fields(args)...); err != nil || r.Code != 0 {
			return fmt.Errorf("ip %s: %w %s", args, err, r.Text())
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", publicAddress+":0")
	if err != nil {
		return err
	}
	g := s.serveRegistry(l)
	canary, err := listenCanary(ctx)
	if err != nil {
		return err
	}
	defer canary.close()
	none := []string{"HTTP_PROXY=", "HTTPS_PROXY=", "ALL_PROXY=", "http_proxy=", "https_proxy="}
	m, err := s.start(ctx, setup{Options: mirrord.Options{Upstreams: "docker.io: {endpoints: [" + g.url() + "]}", Env: none}})
	if err != nil {
		return err
	}
	c := m.attacker()
	defer c.close()
	ask := func(i int, address string) answer {
		layer := text(fmt.Sprint("layer ", i))
		digest := digestOf(layer)
		g.behave(func(w http.ResponseWriter, r *http.Request, q question) bool {
			if q.kind == "blobs" {
				http.Redirect(w, r, fmt.Sprintf("http://%s:%s/layer", address, canary.port), http.StatusTemporaryRedirect)
			}
			return q.kind == "blobs"
		})
		asking, stop := context.WithTimeout(ctx, ends)
		defer stop()
		return c.get(asking, blobPath(fmt.Sprint("docker.io/attacker/layer", i), digest))
	}
	_ = ask(0, otherPublic)
	s.atLeast("a redirect to a public address is followed: connections", float64(len(canary.take())), 1, "")
	refused := 0
	for i, address := range innerAddresses {
		a := ask(i+1, address)
		if dialled := canary.take(); len(dialled) > 0 {
			s.add(figure{What: "a redirect to " + address, Got: fmt.Sprint("dialled ", dialled), Bound: "is refused"})
			continue
		}
		if a.code >= 400 {
			refused++
		}
	}
	s.equal(fmt.Sprint("inner addresses refused, of ", len(innerAddresses)), refused, len(innerAddresses))
	return nil
}

// canary notes which addresses are dialled.
type canary struct {
	listeners []net.Listener
	port      string
	mu        sync.Mutex // guards dialled
	dialled   []string
}

func listenCanary(ctx context.Context) (*canary, error) {
	c := &canary{}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "[::]:0") // both families
	if err != nil {
		return nil, err
	}
	c.listeners = []net.Listener{l}
	_, c.port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.dialled = append(c.dialled, conn.LocalAddr().String())
			c.mu.Unlock()
			_ = conn.Close()
		}
	}()
	return c, nil
}

func (c *canary) take() []string {
	time.Sleep(20 * time.Millisecond) // for a connection that has just been accepted
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.dialled
	c.dialled = nil
	return list
}

func (c *canary) close() {
	for _, l := range c.listeners {
		_ = l.Close()
	}
}
