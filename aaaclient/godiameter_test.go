package aaaclient

import (
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fiorix/go-diameter/v4/diam"
	"github.com/fiorix/go-diameter/v4/diam/avp"
	"github.com/fiorix/go-diameter/v4/diam/datatype"
	diamdict "github.com/fiorix/go-diameter/v4/diam/dict"
	"github.com/fiorix/go-diameter/v4/diam/sm"

	"tollbridge/asm/acct"
	"tollbridge/dict"
)

// TestGoDiameter delivers to a server made with go-diameter, which reads our
// requests by our dictionary.
func TestGoDiameter(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	goDiameter(t, ln, Peer{Address: ln.Addr().String()})
}

func goDiameter(t *testing.T, ln net.Listener, to Peer) {
	if err := diamdict.Default.Load(strings.NewReader(dict.For(0).GoDiameter())); err != nil {
		t.Fatal(err)
	}
	type request struct {
		SessionID string `avp:"Session-Id"`
		Type      uint32 `avp:"Accounting-Record-Type"`
		Number    uint32 `avp:"Accounting-Record-Number"`
		Input     uint64 `avp:"Accounting-Input-Octets"`
		Output    uint64 `avp:"Accounting-Output-Octets"`
	}
	machine := sm.New(&sm.Settings{OriginHost: "go.home.example", OriginRealm: "home.example", VendorID: 0, ProductName: "go-diameter"})
	var mu sync.Mutex
	got := map[storeKey]uint64{}
	machine.HandleFunc("ACR", func(c diam.Conn, m *diam.Message) {
		var r request
		if err := m.Unmarshal(&r); err != nil {
			t.Errorf("go-diameter can't read a request: %v", err)
		}
		mu.Lock()
		got[storeKey{r.SessionID, r.Number}] = r.Input + r.Output
		mu.Unlock()
		a := m.Answer(diam.Success)
		a.InsertAVP(diam.NewAVP(avp.SessionID, avp.Mbit, 0, datatype.UTF8String(r.SessionID)))
		for _, v := range []struct {
			code uint32
			data datatype.Type
		}{
			{avp.OriginHost, datatype.DiameterIdentity("go.home.example")}, {avp.OriginRealm, datatype.DiameterIdentity("home.example")},
			{avp.AccountingRecordType, datatype.Enumerated(r.Type)}, {avp.AccountingRecordNumber, datatype.Unsigned32(r.Number)},
		} {
			if _, err := a.NewAVP(v.code, avp.Mbit, 0, v.data); err != nil {
				t.Error(err)
			}
		}
		if _, err := a.WriteTo(c); err != nil {
			t.Logf("answer: %v", err)
		}
	})
	server := &diam.Server{Handler: machine}
	ended := make(chan struct{})
	go func() {
		server.Serve(ln) //nolint:errcheck // ends with the listener
		close(ended)
	}()
	t.Cleanup(func() {
		ln.Close()
		if !to.SCTP { // its listener for SCTP does not wake who accepts
			<-ended
		}
	})

	outbox := newOutbox()
	all := records(50, 10)
	outbox.add(all...)
	cfg := client(outbox)
	cfg.Peers, cfg.Timeout = []Peer{to}, 10*time.Second
	c, stop := runClient(t, cfg)
	settled(t, outbox, c)
	stop()
	outbox.check(t, acct.Acknowledged)
	for _, r := range all {
		if sum, ok := got[storeKey{r.SessionID, r.Number}]; !ok || sum != r.Usage.InputOctets+r.Usage.OutputOctets {
			t.Errorf("%s/%d arrived: %v, with %d octets", r.SessionID, r.Number, ok, sum)
		}
	}
	if s := c.Stats(); s.Sent != 500 || s.Unmatched != 0 {
		t.Errorf("stats %+v", s)
	}
}
