package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/admin/client"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/regular"
)

const defaultAdmin = "http://127.0.0.1:5001"

// inMemory is the address of a mirror in this process.
const inMemory = "http://localhost"

// adminFlags are the flags of the commands that talk to a running mirror.
type adminFlags struct {
	url, tokenFile, ca, config string
	cert, key                  string // of the operator
	output                     output

	serverName string // of the certificate in ca, where that is the listener's own
	// dial connects to a mirror in this process. Nil: the flags say where it is.
	dial func(context.Context) (net.Conn, error)
}

// add adds the flags. wide says that the command has more to show than fits a narrow terminal; forms are other values of -o.
func (f *adminFlags) add(cmd *cobra.Command, wide bool, forms ...string) {
	cmd.Flags().StringVar(&f.url, "admin", os.Getenv("MIRROR_ADMIN"),
		"`URL` or HOST:PORT of the mirror's admin listener; variable MIRROR_ADMIN (default: admin.listen of --config, "+
			"else "+defaultAdmin+")")
	addConfig(cmd, &f.config, "of the mirror, for its admin address and token")
	cmd.Flags().StringVar(&f.tokenFile, "admin-token-file", os.Getenv("MIRROR_ADMIN_TOKEN_FILE"),
		"`file` with the token of the admin listener; variable MIRROR_ADMIN_TOKEN_FILE (default: admin.tokenFile of --config)")
	cmd.Flags().StringVar(&f.ca, "admin-ca", os.Getenv("MIRROR_ADMIN_CA"),
		"`file` with the certificate that signs the listener's own, for https; variable MIRROR_ADMIN_CA (default: "+
			"admin.tls.cert of --config)")
	cmd.Flags().StringVar(&f.cert, "admin-cert", os.Getenv("MIRROR_ADMIN_CERT"),
		"`file` with the operator's certificate, for https; variable MIRROR_ADMIN_CERT")
	cmd.Flags().StringVar(&f.key, "admin-key", os.Getenv("MIRROR_ADMIN_KEY"), "`file` with its private key; variable MIRROR_ADMIN_KEY")
	f.output.add(cmd, wide, forms...)
}

// get requests /api/v1/PATH.
func (f *adminFlags) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	return f.ask(func(c *client.Client) ([]byte, error) { return c.Get(ctx, path, query) })
}

// decode reads an answer, which is to be a thing of that kind.
func (f *adminFlags) decode(body []byte, into any, kind string) error {
	if err := json.Unmarshal(body, into); err != nil {
		return f.isNot(kind)
	}
	return nil
}

// isNot is the error for an answer that is not of that kind.
func (f *adminFlags) isNot(kind string) error {
	return &exitError{exitFailed, fmt.Errorf("%s did not return %s; is it a mirror's admin address?", f.url, kind)}
}

// show prints an answer in the form of -o, or as the text that is made of it. kind names what the answer is to be.
func show[T any](cmd *cobra.Command, f *adminFlags, body []byte, kind string, text func(T) string) error {
	if f.output.encoded() {
		return f.output.print(cmd.OutOrStdout(), body)
	}
	var answer T
	if err := f.decode(body, &answer, kind); err != nil {
		return err
	}
	return write(cmd.OutOrStdout(), text(answer))
}

// showPath requests /api/v1/PATH and shows the answer.
func showPath[T any](cmd *cobra.Command, f *adminFlags, path string, query url.Values, kind string, text func(T) string) error {
	body, err := f.get(cmd.Context(), path, query)
	if err != nil {
		return err
	}
	return show(cmd, f, body, kind, text)
}

// ask sends a request to the mirror's admin listener.
func (f *adminFlags) ask(request func(*client.Client) ([]byte, error)) ([]byte, error) {
	c, err := f.client()
	if err != nil {
		return nil, err
	}
	body, err := request(c)
	switch {
	case errors.Is(err, client.ErrUnreachable):
		return nil, &exitError{exitUnreachable, err}
	case err != nil:
		return nil, &exitError{exitFailed, err}
	}
	return body, nil
}

// client is a client of the mirror's admin listener.
func (f *adminFlags) client() (*client.Client, error) {
	if f.dial != nil {
		return client.New(client.Options{URL: inMemory, Dial: f.dial})
	}
	if err := f.fromConfig(); err != nil {
		return nil, err
	}
	token, err := f.token()
	if err != nil {
		return nil, &exitError{exitFailed, err}
	}
	o := client.Options{URL: f.url, Token: token, ServerName: f.serverName}
	if f.ca != "" {
		if o.CA, err = regular.Read(f.ca, config.MaxFile); err != nil {
			return nil, &exitError{exitFailed, fmt.Errorf("--admin-ca: %w", err)}
		}
	}
	if (f.cert == "") != (f.key == "") {
		return nil, &exitError{exitUsage, errors.New("--admin-cert and --admin-key belong together; give both")}
	}
	if f.cert != "" {
		pair, err := regular.KeyPair(f.cert, f.key, config.MaxFile)
		if err != nil {
			return nil, &exitError{exitFailed, fmt.Errorf("--admin-cert %s with --admin-key %s: %w; they must be PEM files that belong together",
				f.cert, f.key, err)}
		}
		o.Certificate = &pair
	}
	c, err := client.New(o)
	if errors.Is(err, client.ErrCA) {
		return nil, &exitError{exitUsage, fmt.Errorf("--admin-ca %s: %w", f.ca, err)}
	}
	if err != nil {
		return nil, &exitError{exitUsage, fmt.Errorf("--admin: %w", err)}
	}
	return c, nil
}

// fromConfig takes from the configuration what neither a flag nor a variable sets.
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
		return &exitError{exitFailed, fmt.Errorf("%w; correct it, or give the mirror's address with --admin", err)}
	}
	host, port, err := net.SplitHostPort(c.Admin.Listen)
	if err != nil {
		return &exitError{exitFailed, fmt.Errorf("admin.listen: %w", err)}
	}
	f.url = choose(c.Admin.TLS.Enabled(), "https://", "http://") + net.JoinHostPort(config.LocalHost(host), port)
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

// certificateName is a name that the first certificate of a file is for. The certificate need not have the name under which
// the listener is reached from its own machine.
func certificateName(path string) (string, error) {
	text, err := regular.Read(path, config.MaxFile)
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
	b, err := regular.Read(f.tokenFile, config.MaxFile)
	if err != nil {
		return "", fmt.Errorf("--admin-token-file: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if err = admin.CheckToken(token); token == "" {
		err = errors.New("is empty")
	}
	if err != nil {
		return "", fmt.Errorf("--admin-token-file: %s %w; write the token alone to it: that of admin.tokenFile, or the one that mirror token new "+
			"printed for the operator", f.tokenFile, err)
	}
	return token, nil
}
