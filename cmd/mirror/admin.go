package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin/client"
	"github.com/registrymirror/mirror/config"
)

const exitUnreachable = 4 // the mirror that was to be asked

const defaultAdmin = "http://127.0.0.1:5001"

// adminFlags are those of commands that ask a running mirror.
type adminFlags struct {
	url, tokenFile, ca, config string
	output                     output

	serverName string // of the certificate in ca, where that is the listener's own
}

// add adds the flags. wide says that there is more to show than fits a narrow terminal.
func (f *adminFlags) add(cmd *cobra.Command, wide bool) {
	cmd.Flags().StringVar(&f.url, "admin", os.Getenv("MIRROR_ADMIN"),
		"`URL` or HOST:PORT of the mirror's admin listener; variable MIRROR_ADMIN (default: admin.listen of --config, "+
			"else "+defaultAdmin+")")
	cmd.Flags().StringVar(&f.config, "config", os.Getenv("MIRROR_CONFIG"),
		"configuration `file` of the mirror, which says where it listens; variable MIRROR_CONFIG")
	cmd.Flags().StringVar(&f.tokenFile, "admin-token-file", os.Getenv("MIRROR_ADMIN_TOKEN_FILE"),
		"`file` with the token that it wants; variable MIRROR_ADMIN_TOKEN_FILE (default: admin.tokenFile of --config)")
	cmd.Flags().StringVar(&f.ca, "admin-ca", os.Getenv("MIRROR_ADMIN_CA"),
		"`file` with the certificate that signs the listener's own, for https; variable MIRROR_ADMIN_CA (default: "+
			"admin.tls.cert of --config)")
	completesFiles(cmd, "config", "yaml", "yml")
	f.output.add(cmd, wide)
}

// get asks for /api/v1/PATH.
func (f *adminFlags) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	return f.ask(func(c *client.Client) ([]byte, error) { return c.Get(ctx, path, query) })
}

// read reads an answer; otherwise says what it is where it can't be read.
func (f *adminFlags) read(body []byte, into any, otherwise string) error {
	if err := json.Unmarshal(body, into); err != nil {
		return &exitError{exitFailed, fmt.Errorf("%s answered with what is %s; is it a mirror?", f.url, otherwise)}
	}
	return nil
}

// print prints an answer in the form that -o wants; text for people is printed as it is.
func (f *adminFlags) print(out io.Writer, body []byte) error {
	text, err := f.output.encode(body)
	if err != nil {
		return err
	}
	return write(out, text)
}

// ask puts a question to the mirror's admin listener.
func (f *adminFlags) ask(question func(*client.Client) ([]byte, error)) ([]byte, error) {
	if err := f.fromConfig(); err != nil {
		return nil, err
	}
	token, err := f.token()
	if err != nil {
		return nil, &exitError{exitFailed, err}
	}
	o := client.Options{URL: f.url, Token: token, ServerName: f.serverName}
	if f.ca != "" {
		if o.CA, err = os.ReadFile(f.ca); err != nil {
			return nil, &exitError{exitFailed, fmt.Errorf("--admin-ca: %w", err)}
		}
	}
	c, err := client.New(o)
	if errors.Is(err, client.ErrCA) {
		return nil, &exitError{exitUsage, fmt.Errorf("--admin-ca %s: %w", f.ca, err)}
	}
	if err != nil {
		return nil, &exitError{exitUsage, fmt.Errorf("--admin: %w", err)}
	}
	body, err := question(c)
	switch {
	case errors.Is(err, client.ErrUnreachable):
		return nil, &exitError{exitUnreachable, err}
	case err != nil:
		return nil, &exitError{exitFailed, err}
	}
	return body, nil
}

// fromConfig fills in from the configuration what neither a flag nor a variable says.
func (f *adminFlags) fromConfig() error {
	if f.url != "" {
		return nil
	}
	if f.config == "" && os.Getenv("MIRROR_ADMIN_LISTEN") == "" {
		f.url = defaultAdmin
		return nil
	}
	c, err := config.Load(f.config, os.Environ())
	if err != nil {
		return &exitError{exitFailed, fmt.Errorf("%w; correct it, or say where the mirror is with --admin", err)}
	}
	host, port, err := net.SplitHostPort(c.Admin.Listen)
	if err != nil {
		return &exitError{exitFailed, fmt.Errorf("admin.listen: %w", err)}
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	f.url = choose(c.Admin.TLS.Enabled(), "https://", "http://") + net.JoinHostPort(host, port)
	if c.Admin.TLS.Enabled() && f.ca == "" {
		f.ca = c.Admin.TLS.Cert // the listener's own
		if f.serverName, err = certificateName(f.ca); err != nil {
			return &exitError{exitFailed, fmt.Errorf("admin.tls.cert: %w", err)}
		}
	}
	if f.tokenFile == "" {
		f.tokenFile = c.Admin.TokenFile
	}
	return nil
}

// certificateName is a name that the first certificate of a file is for, since it need not be that under which its listener
// is called from its own machine.
func certificateName(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return "", fmt.Errorf("%s: %w", path, client.ErrCA)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: %w", path, err)
	case len(cert.DNSNames) > 0:
		return strings.Replace(cert.DNSNames[0], "*", "mirror", 1), nil
	case len(cert.IPAddresses) > 0:
		return cert.IPAddresses[0].String(), nil
	}
	return "", nil
}

func (f *adminFlags) token() (string, error) {
	if f.tokenFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(f.tokenFile)
	if err != nil {
		return "", fmt.Errorf("--admin-token-file: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", fmt.Errorf("--admin-token-file: %s is empty", f.tokenFile)
	}
	return token, nil
}
