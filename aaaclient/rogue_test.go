package aaaclient

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"

	"tollbridge/aaaclient/peer"
	"tollbridge/dict/avp"
)

// A sending is an Accounting-Request as a rogue received it.
type sending struct {
	session    string
	number     uint32
	retransmit bool
	endToEnd   uint32
	hopByHop   uint32
	conn       int // of which connection, from 0
}

// A rogue is an AAA server that does with each request what act says, called
// one after the other.
type rogue struct {
	host string                             // "" means acct.home.example
	act  func(c *rogueConn, r rogueRequest) // nil accounts for each
	cea  func(peer.Node) error              // refuses capabilities

	secure *peer.Credentials // nil is no TLS

	mu    sync.Mutex
	conns []*rogueConn
	got   []sending
	up    func(c *rogueConn) // a connection has begun
}

type rogueConn struct {
	*peer.Conn
	rogue *rogue
	nc    net.Conn
	index int
	ready chan struct{} // closed once Conn is set
}

type rogueRequest struct {
	peer.Message
	sending
	n int // of this rogue, from 0
}

// success answers r with that Result-Code and further AVPs.
func (c *rogueConn) reply(r rogueRequest, result uint32, more ...[]byte) {
	c.send(r, result, r.HopByHop, r.EndToEnd, more...)
}

func (c *rogueConn) send(r rogueRequest, result, hop, end uint32, more ...[]byte) {
	m := r.Message
	m.HopByHop, m.EndToEnd = hop, end
	b := peer.AppendAnswerHeader(nil, m, result)
	b = avp.AppendString(b, avp.SessionID, 0, avp.FlagMandatory, r.session)
	b = avp.AppendUint32(b, avp.ResultCodeAVP, 0, avp.FlagMandatory, result)
	b = avp.AppendString(b, avp.OriginHost, 0, avp.FlagMandatory, c.Local().OriginHost)
	b = avp.AppendString(b, avp.OriginRealm, 0, avp.FlagMandatory, "home.example")
	b = avp.AppendUint32(b, avp.AccountingRecordNumber, 0, avp.FlagMandatory, r.number)
	b = append(b, slices.Concat(more...)...)
	avp.SetLength(b)
	c.Send(b) //nolint:errcheck // a closed connection is part of the game
}

func (c *rogueConn) Receive(m peer.Message) bool {
	<-c.ready
	if m.Command != avp.CommandAccounting || !m.Request() {
		return false
	}
	m.Octets = slices.Clone(m.Octets)
	session, _ := avp.Find(m.AVPs(), avp.SessionID, 0)
	number, _ := avp.Find(m.AVPs(), avp.AccountingRecordNumber, 0)
	n, _ := number.Uint32()
	s := sending{string(session.Data), n, m.Flags&avp.FlagRetransmitted != 0, m.EndToEnd, m.HopByHop, c.index}
	r := c.rogue
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, s)
	req := rogueRequest{m, s, len(r.got) - 1}
	if r.act == nil {
		c.reply(req, avp.ResultSuccess)
	} else {
		r.act(c, req)
	}
	return true
}

func (c *rogueConn) Flush()   {}
func (c *rogueConn) Changed() {}

// serve serves one connection until it ends.
func (r *rogue) serve(ctx context.Context, nc net.Conn) {
	host := r.host
	if host == "" {
		host = "acct.home.example"
	}
	r.mu.Lock()
	c := &rogueConn{rogue: r, nc: nc, index: len(r.conns), ready: make(chan struct{})}
	r.conns = append(r.conns, c)
	r.mu.Unlock()
	conn, err := peer.Accept(ctx, nc, peer.Config{Node: peer.Node{OriginHost: host, OriginRealm: "home.example"}, Handler: c, Admit: r.cea})
	if err != nil {
		return
	}
	c.Conn = conn
	close(c.ready)
	if r.up != nil {
		r.up(c)
	}
	conn.Run(ctx) //nolint:errcheck // how it ends is the client's to judge
}

// listen serves on a socket until the test ends and returns its address.
func (r *rogue) listen(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) error {
		var g sync.WaitGroup
		defer g.Wait()
		defer context.AfterFunc(ctx, func() { ln.Close() })()
		for {
			nc, err := ln.Accept()
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return nil
				}
				return err
			}
			if r.secure != nil {
				nc = tls.Server(nc, r.secure.Server())
			}
			g.Go(func() { r.serve(ctx, nc) })
		}
	})
	return ln.Addr().String()
}

// sendings returns what has come so far.
func (r *rogue) sendings() []sending {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}
