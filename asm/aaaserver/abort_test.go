package aaaserver

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/dict/avp"
)

// An accessServer answers requests by the Session-Id.
type accessServer struct {
	conn *peer.Conn
	got  chan peer.Message
}

func (a *accessServer) Receive(m peer.Message) bool {
	if m.Command != avp.CommandAbortSession && m.Command != avp.CommandReAuth || !m.Request() {
		return false
	}
	m.Octets = append([]byte(nil), m.Octets...)
	id, _ := avp.Find(m.AVPs(), avp.SessionID, 0)
	result := uint32(avp.ResultSuccess)
	switch string(id.Data) {
	case "silent":
		a.got <- m
		return true
	case "unknown":
		result = avp.ResultUnknownSessionID
	}
	b := peer.AppendAnswerHeader(nil, m, result)
	b = avp.Append(b, avp.SessionID, 0, avp.FlagMandatory, id.Data)
	b = avp.AppendUint32(b, avp.ResultCodeAVP, 0, avp.FlagMandatory, result)
	b = avp.AppendString(b, avp.ErrorMessage, 0, 0, "as asked")
	avp.SetLength(b)
	other := append([]byte(nil), b...)
	other[15]++ // an answer to nobody's question
	a.conn.Send(append(other, b...))
	a.got <- m
	return true
}

func (a *accessServer) Flush()   {}
func (a *accessServer) Changed() {}

// RFC 6733, Sections 8.5 and 8.3: the server asks, the access server ends its
// session, or has it authorized anew, or says why not.
func TestAbort(t *testing.T) {
	server, address, _ := start(t, Config{Store: storeFunc(stored), Controls: true, StateID: 9})
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	a := &accessServer{got: make(chan peer.Message, 10)}
	a.conn, err = peer.Connect(t.Context(), nc, peer.Config{Node: peer.Node{OriginHost: "bng.isp.example", OriginRealm: "isp.example"}, Handler: a})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- a.conn.Run(context.Background()) }()

	// The client is connected before the server has it in its list.
	until(t, func() bool {
		err := server.Abort(t.Context(), "BNG.isp.example", "bng.isp.example;1;7")
		if err != nil && !errors.Is(err, ErrNotConnected) {
			t.Fatal(err)
		}
		return err == nil
	})
	m := <-a.got
	if m.Application != avp.ApplicationNASREQ || m.Flags != avp.FlagRequest|avp.FlagProxiable {
		t.Errorf("asked by %+v", m.Header)
	}
	for code, want := range map[uint32]string{
		avp.SessionID: "bng.isp.example;1;7", avp.DestinationHost: "bng.isp.example", avp.DestinationRealm: "isp.example",
		avp.OriginHost: server.cfg.OriginHost, avp.OriginRealm: server.cfg.OriginRealm,
	} {
		if v, ok := avp.Find(m.AVPs(), code, 0); !ok || string(v.Data) != want || !v.Mandatory() {
			t.Errorf("AVP %d is %q, want %q", code, v.Data, want)
		}
	}
	if u32(m, avp.AuthApplicationID) != avp.ApplicationNASREQ || u32(m, avp.OriginStateID) != 9 {
		t.Errorf("asked by %x", m.Octets)
	}

	if err := server.Reauthorize(t.Context(), "bng.isp.example", "bng.isp.example;1;7"); err != nil {
		t.Error(err)
	}
	m = <-a.got
	if kind, ok := avp.Find(m.AVPs(), avp.ReAuthRequestType, 0); !ok || u32(m, avp.ReAuthRequestType) != authorizeOnly || !kind.Mandatory() || m.Command != avp.CommandReAuth {
		t.Errorf("asked by %x", m.Octets)
	}

	var refused *RefusedError
	if err := server.Abort(t.Context(), "bng.isp.example", "unknown"); !errors.As(err, &refused) || refused.Result != avp.ResultUnknownSessionID || refused.Text != "as asked" {
		t.Errorf("an unknown session: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := server.Abort(ctx, "bng.isp.example", "silent"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer: %v", err)
	}
	if err := server.Abort(t.Context(), "other.isp.example", "x"); !errors.Is(err, ErrNotConnected) {
		t.Errorf("another: %v", err)
	}
	gone := make(chan error, 1)
	go func() { gone <- server.Abort(t.Context(), "bng.isp.example", "silent") }()
	<-a.got // unknown
	<-a.got // silent
	<-a.got // silent again
	a.conn.Transport().Close()
	if err := <-gone; !errors.Is(err, ErrNotConnected) {
		t.Errorf("the connection broke: %v", err)
	}
	<-ended
	if s := server.Stats(); s.Strange != 3 {
		t.Errorf("stats %+v: want three answers to nobody's question", s)
	}
}
