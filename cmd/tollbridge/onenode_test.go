package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tollbridge/internal/certtest"
	"tollbridge/internal/peertest"
)

// TestOneNode: two operators account each other's users, and each has one
// Diameter node for both directions, a.example and b.example: both connect, over
// mutual TLS, and the one connection that they keep carries the records of both
// (RFC 6733, Sections 2.1 and 5.6.4). Each is killed while records are on the
// way. In the end the books of both balance, each has billed what tshark
// counted, and one connection is open.
func TestOneNode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, users := files(t, dir)
	ca := certtest.NewAuthority(t)
	ports := peertest.FreePorts(t, 2)
	nodes := []*oneNode{
		newOneNode(t, dir, ca, users, "a", ports[0], "b", ports[1]),
		newOneNode(t, dir, ca, users, "b", ports[1], "a", ports[0]),
	}
	for _, n := range nodes {
		n.start()
	}
	octets, _ := captureOctets(t)
	s := captureStream(t)
	for _, n := range nodes {
		s.send(t, n.tcp(), len(s.messages))
	}
	for _, n := range nodes {
		if !until(t, func() bool { return audit(t, n.data).Received.Octets == octets }) {
			t.Fatal("not all is received")
		}
	}
	for _, n := range nodes {
		n.waitLog(`msg="acr sent"`)
		n.kill()
		n.start()
	}
	for _, n := range nodes {
		if sent := waitEnd(t, n.data); sent.Received.Octets != octets || sent.Acknowledged != sent.Accounted {
			t.Errorf("the books of %s are %+v", filepath.Base(n.data), sent)
		}
	}
	if !until(t, func() bool { return nodes[0].accepted()+nodes[1].accepted() == 1 }) {
		t.Errorf("%d and %d connections stand", nodes[0].accepted(), nodes[1].accepted())
	}
	for i, n := range nodes {
		other := nodes[1-i]
		if got, want := len(charges(t, other.data)), acknowledged(t, n.data); got != want {
			t.Errorf("%s has %d records, but %d are acknowledged", filepath.Base(other.data), got, want)
		}
		checkBill(t, bill(charges(t, other.data)))
	}
	for _, n := range nodes {
		n.stop()
		audit(t, n.data)
	}
}

// A oneNode is a daemon whose client and server are one Diameter node.
type oneNode struct {
	*daemon
	setup setup
	t     *testing.T
}

func newOneNode(t *testing.T, dir string, ca *certtest.Authority, users, name, port, partner, partnerPort string) *oneNode {
	t.Helper()
	own := ca.Write(ca.Issue("node." + name + ".example"))
	tls := fmt.Sprintf("{certificate: %s, key: %s, ca: %s}", own.Certificate, own.Key, own.CA)
	text := strings.NewReplacer("NAME", name, "PARTNER", partner, "DATA", filepath.Join(dir, name), "USERS", users, "TLS", tls).Replace(`
data: DATA
identity: {originHost: node.NAME.example, originRealm: NAME.example}
collectingProcess: {udpCollectors: [], tcpCollectors: ['127.0.0.1:0']}
users: {files: [USERS]}
accounting: {mode: asm, interimInterval: 1s, linger: 1500ms}
delivery:
  destinationRealm: PARTNER.example
  peers: [{address: '127.0.0.1:` + partnerPort + `', host: node.PARTNER.example, tls: true}]
  tls: TLS
  timeout: 2s
  reconnect: 200ms
server:
  listen: []
  tlsListen: ['127.0.0.1:` + port + `']
  tls: TLS
  originHost: node.NAME.example
  clients: [node.PARTNER.example]
spool: {checkpoint: 100ms}
status: {listen: '127.0.0.1:0'}
log: {level: debug}
`)
	file := filepath.Join(dir, name+".yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return &oneNode{setup: setup{data: filepath.Join(dir, name), file: file}, t: t}
}

func (n *oneNode) start() { n.daemon = start(n.t, n.setup) }

// accepted returns how many connections stand that the partner has made.
func (n *oneNode) accepted() int {
	return n.lines.count(`msg="peer is connected" remote=`) - n.lines.count(`msg="peer is disconnected" remote=`)
}
