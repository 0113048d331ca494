package main

import (
	"path/filepath"
	"testing"
)

// A daemon delivers to another over SCTP. Each is killed while records are on
// the way, and comes back: the books balance, and the bill is what tshark
// counted.
func TestDeliverSCTP(t *testing.T) {
	needSCTP(t)
	dir := t.TempDir()
	_, users := files(t, dir)
	accounts := setup{data: filepath.Join(dir, "aaa"), origin: "unused.aaa.example", server: "127.0.0.1:0", serving: ", sctpListen: ['127.0.0.1:0']"}
	server := start(t, accounts)
	address := server.address("server.sctpListen")
	accounts.serving = ", sctpListen: ['" + address + "']" // for its restarts
	cfg := setup{
		data: filepath.Join(dir, "bridge"), users: users, tcp: "127.0.0.1:0",
		peers: []string{"{address: '" + address + "', host: server.aaa.example, sctp: true}"},
	}
	d := start(t, cfg)
	s := captureStream(t)
	s.send(t, d.tcp(), len(s.messages))
	octets, nobodys := captureOctets(t)
	if !until(t, func() bool { return audit(t, cfg.data).Received.Octets == octets }) {
		t.Fatalf("received %+v", audit(t, cfg.data).Received)
	}
	d.waitLog(`msg="acr sent"`)
	server.kill()
	server = start(t, accounts)
	d.waitLog(`msg="peer is not connected"`)
	d.kill()
	d = start(t, cfg)
	if b := waitEnd(t, cfg.data); b.Received.Octets != octets || b.Suspended.Octets != nobodys || b.Acknowledged != b.Accounted {
		t.Errorf("the books are %+v", b)
	}
	d.stop()
	server.stop()
	audit(t, cfg.data)
	if got, want := len(charges(t, accounts.data)), acknowledged(t, cfg.data); got != want {
		t.Errorf("the server has %d records, but %d are acknowledged", got, want)
	}
	checkBill(t, bill(charges(t, accounts.data)))
}
