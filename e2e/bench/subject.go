package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/cert"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/registry"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// The subjects, as they are called in the tables.
const (
	direct       = "straight"      // from the upstream, with nothing between
	distribution = "distribution"  // its registry as a pull-through cache
	nginxCache   = "nginx cache"   // proxy_cache with its lock, what people write by hand
	nginxStatic  = "nginx static"  // files: the ceiling for hits
	bare         = "bare net/http" // a handler that knows one answer
	mirror       = "mirror"
)

// subject is a server to pull from, in processes of its own.
type subject struct {
	base  string
	admin string // of the mirror
	ca    *x509.CertPool
	proc  *proc.Process // nil: not ours to stop
	dir   string
}

func (s *subject) host() string { return s.base[strings.Index(s.base, "://")+3:] }

func (s *subject) stop() {
	if s.proc != nil {
		s.proc.End()
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// lab starts subjects.
type lab struct {
	dir    string // of everything
	files  string // the content
	binary string // of the mirror
	self   string // of this program
	tls    cert.Files
	sparse *image   // of ten gigabytes; nil until it is wanted
	list   []*image // of a warm-up; nil until it is wanted
}

func (l *lab) folder() (string, error) { return os.MkdirTemp(l.dir, "s-") }

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)

// child runs this program as another one.
func (l *lab) child(ctx context.Context, args ...string) (*subject, error) {
	p, err := proc.Launch(proc.Options{Name: args[0]}, l.self, args...)
	if err != nil {
		return nil, err
	}
	s := &subject{proc: p}
	err = wait.Until(ctx, 10*time.Second, func() error {
		if m := listening.FindStringSubmatch(p.Output()); m != nil {
			s.base = "http://" + m[1]
			return nil
		}
		if err := p.Exited(); err != nil {
			return err
		}
		return errors.New("it does not say where it listens")
	})
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("%s: %w", args[0], err)
	}
	return s, nil
}

func (l *lab) upstream(ctx context.Context, k kind) (*subject, error) {
	return l.child(ctx, "upstream", "-dir", l.files, "-rate", fmt.Sprint(k.rate), fmt.Sprintf("-auth=%t", k.auth),
		"-cut", fmt.Sprint(k.cut))
}

func (l *lab) handler(ctx context.Context, x *image) (*subject, error) {
	return l.child(ctx, "handler", "-file", filepath.Join(l.files, "v2", x.repo, "manifests", tag))
}

// start runs a subject, with nothing cached, in front of an upstream.
func (l *lab) start(ctx context.Context, name string, up *subject, tls bool) (*subject, error) {
	if name == direct {
		return &subject{base: up.base}, nil
	}
	dir, err := l.folder()
	if err != nil {
		return nil, err
	}
	s := &subject{dir: dir}
	scheme := "http://"
	if tls {
		s.ca, scheme = l.tls.Pool, "https://"
	}
	switch name {
	case distribution:
		r, err := registry.Launch(ctx, registry.Options{Proxy: up.base, Dir: dir, Program: filepath.Join(tool.Bin(), "registry")})
		if err != nil {
			return nil, err
		}
		s.proc, s.base = r.Process, "http://"+r.Host
	case nginxCache, nginxStatic:
		if s.proc, s.base, err = l.nginx(ctx, name, dir, up, tls); err != nil {
			return nil, err
		}
		s.base = scheme + s.base
	case mirror:
		o := mirrord.Options{
			Program: l.binary, Dir: dir, Level: "info",
			Upstreams: "docker.io: {endpoints: [" + up.base + "]}",
		}
		if tls {
			o.More = fmt.Sprintf("tls: {cert: %q, key: %q}", l.tls.Cert, l.tls.Key)
		}
		m, err := mirrord.Launch(ctx, o)
		if err != nil {
			return nil, err
		}
		s.proc, s.base, s.admin = m.Process, scheme+m.Host, m.Admin
	}
	return s, nil
}

// What people write, with the limits that a herd of a thousand needs.
const nginxMain = `daemon off; master_process on; worker_processes auto; pid %[1]s/nginx.pid; user root;
error_log %[1]s/error.log error; worker_rlimit_nofile 65536;
events { worker_connections 16384; }
http {
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; server_tokens off;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  default_type application/octet-stream;
%[2]s
}
`

const nginxCacheServer = `
  proxy_cache_path %[1]s/cache levels=1:2 keys_zone=images:16m max_size=50g inactive=1d use_temp_path=off;
  upstream registry { server %[2]s; keepalive 64; }
  server {
    listen %[3]s backlog=4096%[4]s;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host %[2]s;
    proxy_cache images; proxy_cache_key $uri; proxy_max_temp_file_size 0;
    proxy_cache_lock on; proxy_cache_lock_age 1h; proxy_cache_lock_timeout 1h;
    proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504 http_429;
    location ~ /blobs/ { proxy_pass http://registry; proxy_cache_valid 200 1y; }
    location ~ /manifests/sha256: { proxy_pass http://registry; proxy_cache_valid 200 1y; }
    location / { proxy_pass http://registry; proxy_cache_valid 200 1m; }
  }`

const nginxStaticServer = `
  server {
    listen %[3]s backlog=4096%[4]s;
    root %[2]s;
    location ~ /manifests/ { default_type application/vnd.oci.image.manifest.v1+json; }
  }`

func (l *lab) nginx(ctx context.Context, name, dir string, up *subject, tls bool) (*proc.Process, string, error) {
	host, err := freePort(ctx)
	if err != nil {
		return nil, "", err
	}
	server, arg, secure := nginxCacheServer, "", ""
	if name == nginxStatic {
		server, arg = nginxStaticServer, l.files
	} else {
		arg = up.host()
	}
	if tls {
		secure = fmt.Sprintf(" ssl; ssl_certificate %s; ssl_certificate_key %s", l.tls.Cert, l.tls.Key)
	}
	file := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(nginxMain, dir, fmt.Sprintf(server, dir, arg, host, secure))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, "", err
	}
	p, err := proc.Launch(proc.Options{Name: "nginx"}, "/usr/sbin/nginx", "-p", dir, "-e", dir+"/error.log", "-c", file)
	if err != nil {
		return nil, "", err
	}
	err = wait.Until(ctx, 10*time.Second, func() error {
		if err := p.Exited(); err != nil {
			return err
		}
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", host)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	if err != nil {
		p.End()
		return nil, "", fmt.Errorf("nginx: %w", err)
	}
	return p, host, nil
}

// freePort is one that was free a moment ago: nginx can't choose its own and tell.
func freePort(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

// stats asks an upstream what it has counted, and reset sets it to zero.
func stats(ctx context.Context, up *subject) (Stats, error) {
	var s Stats
	resp, err := get(ctx, up.base+"/stats")
	if err != nil {
		return s, err
	}
	defer func() { _ = resp.Body.Close() }()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

func reset(ctx context.Context, up *subject) error {
	resp, err := get(ctx, up.base+"/reset")
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func get(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(req)
}
