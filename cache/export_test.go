package cache

// Kept is how many digests all keeps have.
func (c *Cache) Kept() int {
	c.leases.mu.Lock()
	defer c.leases.mu.Unlock()
	return c.leases.sum
}
