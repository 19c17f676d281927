package plugin

// Touch uses what is known of a repository.
func Touch(p *Plugin, repository string) { p.pick(repository) }

// Images is how many are remembered.
func Images(p *Plugin) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.images)
}
