package plugin

// Touch uses the source of a repository.
func Touch(p *Plugin, repository string) { p.pick(repository) }

// Images is how many are remembered.
func Images(p *Plugin) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.images.Len()
}

// Parse reads an answer for an image: whose login it has, and whether it is one.
func Parse(out []byte, image string) (user, password string, err error) {
	r, err := parse(out, image)
	return r.cred.Username, r.cred.Password.Reveal(), err
}
