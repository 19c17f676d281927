package server

import (
	"net"

	"golang.org/x/sys/unix"
)

// queued is how many bytes in a connection's socket the client has not acknowledged, -1 where the system does not say.
func queued(c *net.TCPConn) int {
	n := -1
	rc, err := c.SyscallConn()
	if err != nil {
		return n
	}
	if err := rc.Control(func(fd uintptr) {
		if v, err := unix.IoctlGetInt(int(fd), unix.TIOCOUTQ); err == nil {
			n = v
		}
	}); err != nil {
		return -1
	}
	return n
}
