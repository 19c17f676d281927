package docker

import "github.com/registrymirror/mirror/auth"

// Login is the login of a docker config for a repository: empty where the text is not a config, or has no entry.
func Login(text []byte, host, repository string) (login auth.Credential, fits string, problem string) {
	c, err := parse(text)
	if err != nil {
		return auth.Credential{}, "", err.Error()
	}
	at, e, ok := best(c.auths, host, repository)
	if !ok {
		return auth.Credential{}, "", ""
	}
	return auth.Credential{Username: e.username, Password: e.password, Identity: e.identity}, at.String(), e.problem
}

// Answer reads the output of a helper.
func Answer(out []byte) (auth.Credential, bool, error) { return parseAnswer("helper", out) }

// Matches reports whether a name with * is for a host.
func Matches(pattern, host string) bool { return matchHost(pattern, host) }
