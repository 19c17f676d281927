package config

import "time"

// Credential is one way to log in to a registry. Its source is one of passwordFile, passwordEnv, dockerConfig, helper,
// plugin, ecr, gar and acr.
type Credential struct {
	// Name is its name in logs, metrics and errors.
	Name string `yaml:"name,omitzero"`
	// Username goes with passwordFile and passwordEnv.
	Username string `yaml:"username,omitzero"`
	// PasswordFile is a file with a password or token. It is read again when it changes.
	PasswordFile string `yaml:"passwordFile,omitzero" path:"own"`
	// PasswordEnv is the name of the variable, in the mirror's environment, with a password or token.
	PasswordEnv string `yaml:"passwordEnv,omitzero"`
	// DockerConfig is a config.json, or a folder where a dockerconfigjson secret is mounted. It is read again when it
	// changes. Its credHelpers and credsStore are asked, too.
	DockerConfig string `yaml:"dockerConfig,omitzero" path:"own"`
	// Helper is a docker credential helper: docker-credential-NAME, looked up in PATH, or its full path.
	Helper string `yaml:"helper,omitzero"`
	// Lifetime is how long the answer of a helper is used. The helper runs again when half of it is over. 0: an hour.
	Lifetime time.Duration `yaml:"lifetime,omitzero"`
	// Plugin is a kubelet credential provider that speaks credentialprovider.kubelet.k8s.io/v1.
	Plugin *Plugin `yaml:"plugin,omitzero"`
	// ECR takes the credential from AWS, by the mirror's own identity: environment, web identity (IRSA), Pod Identity, or
	// the instance's role.
	ECR *ECR `yaml:"ecr,omitzero"`
	// GAR takes the credential from Google Cloud, by the mirror's own identity: a service account's key, or the metadata
	// server.
	GAR *GAR `yaml:"gar,omitzero"`
	// ACR takes the credential from Azure, by the mirror's own identity: workload identity, client secret, or the managed
	// identity.
	ACR *ACR `yaml:"acr,omitzero"`
	// Repositories are globs of the repositories for which it is used, as the registry calls them: * is one segment or a
	// part of one, ** any number of segments. The most specific one wins. Without it: all.
	Repositories []string `yaml:"repositories,omitzero"`
}

// Plugin is a kubelet credential provider.
type Plugin struct {
	// Command is the program: a name that is looked up in PATH, or its full path.
	Command string `yaml:"command,omitzero"`
	// Args are its arguments.
	Args []string `yaml:"args,omitzero"`
	// Env are variables set for it, on top of the mirror's own. Not for secrets.
	Env map[string]string `yaml:"env,omitzero"`
	// TokenFile is a mounted token of a service account, for programs that log in with it.
	TokenFile string `yaml:"tokenFile,omitzero" path:"own"`
	// Annotations are those of the service account that the program wants to know.
	Annotations map[string]string `yaml:"annotations,omitzero"`
}

// ECR is a login of Amazon's registries.
type ECR struct{}

// GAR is a login of Google's registries.
type GAR struct {
	// KeyFile is a service account's key, JSON. Without it: that of GOOGLE_APPLICATION_CREDENTIALS, else the metadata
	// server's.
	KeyFile string `yaml:"keyFile,omitzero" path:"own"`
}

// ACR is a login of Azure's registries.
type ACR struct{}
