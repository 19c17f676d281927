package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/auth/internal/run"
	"github.com/registrymirror/mirror/internal/text"
)

// Helper says which docker credential helper is asked for what.
type Helper struct {
	Program string // docker-credential-pass, or a path; a name without a slash is looked up in PATH
	Host    string // as it stands in image names
	Env     map[string]string
	Timeout time.Duration // 0: 30 s
}

// notFound is what helpers print for a host that they know nothing of: it is a word of their protocol.
const notFound = "credentials not found in native keychain"

// tokenUser is the user name with which a helper says that the secret is a refresh token.
const tokenUser = "<token>"

// NewHelper makes the source of what a helper says. The program is asked again when half of r.Lifetime is over, and when
// the registry refuses what it said.
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

// get asks the helper. found is false where it knows nothing of the host.
func (h Helper) get(ctx context.Context) (c auth.Credential, found bool, err error) {
	out, err := run.Output(ctx, run.Program{
		Path: h.Program, Args: []string{"get"}, Env: h.Env, Timeout: h.Timeout,
	}, []byte(h.key()+"\n"))
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

// parseAnswer reads what a helper printed. An error has nothing of it.
func parseAnswer(program string, out []byte) (c auth.Credential, found bool, err error) {
	var doc struct{ Username, Secret string }
	if err := json.Unmarshal(out, &doc); err != nil {
		return auth.Credential{}, false, fmt.Errorf("%s: what it printed %w", program, jsonError(err))
	}
	switch {
	case doc.Username == "" && doc.Secret == "":
		return auth.Credential{}, false, nil
	case doc.Secret == "":
		return auth.Credential{}, false, fmt.Errorf("%s: what it printed has no Secret", program)
	case doc.Username == tokenUser:
		return auth.Credential{Identity: auth.NewSecret(doc.Secret)}, true, nil
	}
	return auth.Credential{Username: doc.Username, Password: auth.NewSecret(doc.Secret)}, true, nil
}
