package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/auth/internal/run"
	"github.com/registrymirror/mirror/internal/text"
)

// Helper is a docker credential helper and the host that it is asked for.
type Helper struct {
	Program string // docker-credential-pass, or a path; a name without a slash is looked up in PATH
	Host    string // as it stands in image names
}

// notFound is the output of helpers for a host that they have no login for: it is a part of their protocol.
const notFound = "credentials not found in native keychain"

// tokenUser is the user name with which a helper says that the secret is a refresh token.
const tokenUser = "<token>"

// NewHelper makes the source of a helper's login. The program is asked again when half of r.Lifetime is over, and when the
// registry refuses the login.
func NewHelper(h Helper, r auth.Refresh) *auth.Refreshed {
	r.Kind, r.For = "helper", h.Host
	r.Fetch = func(ctx context.Context) (auth.Grant, error) {
		c, found, err := h.get(ctx)
		switch {
		case err != nil:
			return auth.Grant{}, err
		case !found:
			return auth.Grant{}, fmt.Errorf("%s has no login for %s; log in with it, as docker login %s does", h.Program,
				h.key(), h.Host)
		}
		return auth.Grant{Credential: c}, nil
	}
	return auth.NewRefreshed(r)
}

func (h Helper) key() string {
	if hub[h.Host] {
		return hubKey
	}
	return h.Host
}

// get asks the helper. found is false where it has no login for the host.
func (h Helper) get(ctx context.Context) (c auth.Credential, found bool, err error) {
	out, err := run.Output(ctx, run.Program{Path: h.Program, Args: []string{"get"}}, []byte(h.key()+"\n"))
	if err != nil {
		e, failed := errors.AsType[*run.Error](err)
		if !failed {
			return auth.Credential{}, false, err
		}
		said := string(bytes.TrimSpace(e.Output)) // the protocol puts the reason on standard output
		if _, exited := errors.AsType[*exec.ExitError](err); exited && said == notFound {
			return auth.Credential{}, false, nil
		}
		if e.Said == "" && !strings.ContainsAny(said, "{}") { // braces are of a credential
			e.Said = text.FirstLine(said, run.MaxSaid)
		}
		return auth.Credential{}, false, e
	}
	return parseAnswer(h.Program, out)
}

// parseAnswer reads the output of a helper. An error quotes nothing of it.
func parseAnswer(program string, out []byte) (c auth.Credential, found bool, err error) {
	var doc struct{ Username, Secret string }
	if err := json.Unmarshal(out, &doc); err != nil {
		return auth.Credential{}, false, fmt.Errorf("%s: its output %w", program, jsonError(err))
	}
	switch {
	case doc.Username == "" && doc.Secret == "":
		return auth.Credential{}, false, nil
	case doc.Secret == "":
		return auth.Credential{}, false, fmt.Errorf("%s: its output has no Secret", program)
	case doc.Username == tokenUser:
		return auth.Credential{Identity: auth.NewSecret(doc.Secret)}, true, nil
	}
	return auth.Credential{Username: doc.Username, Password: auth.NewSecret(doc.Secret)}, true, nil
}
