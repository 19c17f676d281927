package trouble

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// nameserver is a DNS server: every name is 127.0.0.1 but for those that say what is wrong with them.
type nameserver struct {
	conn net.PacketConn
	ip   string
	done chan struct{}
}

// Names that go wrong, below "example".
const (
	nameMissing = "nx"       // does not exist
	nameBroken  = "servfail" // the server fails
	nameSilent  = "silent"   // no answer comes
	nameFar     = "far"      // an address to which there is no route
)

// far is an address that a connection can't be made to anywhere, and for which no packet leaves the machine.
var far = [4]byte{224, 0, 0, 1}

// serveNames answers on port 53 of an address of loopback that is free.
func serveNames() (*nameserver, error) {
	var all error
	for i := range 100 {
		ip := fmt.Sprintf("127.53.%d.%d", os.Getpid()%250+1, i+1)
		conn, err := net.ListenPacket("udp4", ip+":53") //nolint:noctx // on loopback
		if err == nil {
			n := &nameserver{conn: conn, ip: ip, done: make(chan struct{})}
			go n.serve()
			return n, nil
		}
		all = errors.Join(all, err)
	}
	return nil, fmt.Errorf("listen for DNS: %w", all)
}

// resolvConf writes the file that makes a program ask this server alone.
func (n *nameserver) resolvConf(dir string) (string, error) {
	file := filepath.Join(dir, "resolv.conf")
	text := "nameserver " + n.ip + "\nsearch .\noptions timeout:1 attempts:2\n"
	return file, os.WriteFile(file, []byte(text), 0o644) //nolint:gosec // as /etc/resolv.conf is
}

func (n *nameserver) close() {
	_ = n.conn.Close()
	<-n.done
}

func (n *nameserver) serve() {
	defer close(n.done)
	buf := make([]byte, 1500)
	for {
		size, from, err := n.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if reply := answer(buf[:size]); reply != nil {
			_, _ = n.conn.WriteTo(reply, from)
		}
	}
}

// answer is what a question gets; nil: nothing.
func answer(q []byte) []byte {
	const header = 12
	var labels []string
	i := header
	for i < len(q) && q[i] != 0 {
		end := i + 1 + int(q[i])
		if end >= len(q) {
			return nil
		}
		labels = append(labels, strings.ToLower(string(q[i+1:end])))
		i = end
	}
	if i+5 > len(q) || len(labels) == 0 {
		return nil
	}
	kind, question := binary.BigEndian.Uint16(q[i+1:]), q[header:i+5]
	const noError, servFail, nxDomain = 0, 2, 3
	code, address := uint16(noError), []byte{127, 0, 0, 1}
	switch labels[0] {
	case nameMissing:
		code = nxDomain
	case nameBroken:
		code = servFail
	case nameSilent:
		return nil
	case nameFar:
		address = far[:]
	}
	answers := uint16(0)
	if code == noError && kind == 1 {
		answers = 1
	}
	r := append([]byte(nil), q[:2]...)
	for _, v := range []uint16{0x8180 | code, 1, answers, 0, 0} { // an answer, with recursion
		r = binary.BigEndian.AppendUint16(r, v)
	}
	r = append(r, question...)
	if answers == 1 { // the name of the question, A, IN, 60 s, 4 bytes
		r = append(r, 0xc0, header, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4)
		r = append(r, address...)
	}
	return r
}
