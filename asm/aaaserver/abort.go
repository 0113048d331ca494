package aaaserver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"tollbridge/aaaclient/peer"
	"tollbridge/dict/avp"
)

// ErrNotConnected is matched by the error of asking a peer that has no
// connection to us.
var ErrNotConnected = errors.New("it is not connected")

// A RefusedError is an access server's answer that is no success.
type RefusedError struct {
	Result uint32 // Result-Code
	Text   string // Error-Message; "" for none
}

func (e *RefusedError) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("aaaserver: the access server refused: Result-Code %d: %s", e.Result, e.Text), ": ")
}

// Abort asks an access server, by its Origin-Host, to end a session of its own
// (RFC 6733, Section 8.5: ASR), and returns once it has answered that it does,
// or ctx ends. A refusal is a *RefusedError. It is not sent again.
func (s *Server) Abort(ctx context.Context, host, sessionID string) error {
	return s.ask(ctx, host, sessionID, avp.CommandAbortSession)
}

// Reauthorize is Abort for having a session go on, as whoever authorizes the
// access server's sessions allows from now on: the access server is to ask (RFC
// 6733, Section 8.3: RAR).
func (s *Server) Reauthorize(ctx context.Context, host, sessionID string) error {
	return s.ask(ctx, host, sessionID, avp.CommandReAuth)
}

// authorizeOnly is a Re-Auth-Request-Type (RFC 6733, Section 8.12).
const authorizeOnly = 0

func (s *Server) ask(ctx context.Context, host, sessionID string, command uint32) error {
	s.mu.Lock()
	c := s.conns[avp.FoldIdentity(host)]
	s.mu.Unlock()
	if c == nil {
		return fmt.Errorf("aaaserver: ask %s about a session: %w", host, ErrNotConnected)
	}
	const m = avp.FlagMandatory
	conn := c.conn
	local, remote := conn.Local(), conn.Remote()
	ids := conn.NextIDs()
	b := avp.AppendHeader(nil, avp.Header{
		Flags: avp.FlagRequest | avp.FlagProxiable, Command: command, Application: avp.ApplicationNASREQ,
		HopByHop: ids[0], EndToEnd: ids[1],
	})
	b = avp.AppendString(b, avp.SessionID, 0, m, sessionID)
	b = avp.AppendString(b, avp.OriginHost, 0, m, local.OriginHost)
	b = avp.AppendString(b, avp.OriginRealm, 0, m, local.OriginRealm)
	b = avp.AppendString(b, avp.DestinationRealm, 0, m, remote.OriginRealm)
	b = avp.AppendString(b, avp.DestinationHost, 0, m, remote.OriginHost)
	b = avp.AppendUint32(b, avp.AuthApplicationID, 0, m, avp.ApplicationNASREQ)
	if command == avp.CommandReAuth {
		b = avp.AppendUint32(b, avp.ReAuthRequestType, 0, m, authorizeOnly)
	}
	if local.StateID != 0 {
		b = avp.AppendUint32(b, avp.OriginStateID, 0, m, local.StateID)
	}
	avp.SetLength(b)

	answer := c.asked.add(ids)
	defer c.asked.remove(ids)
	if err := conn.Send(b); err != nil {
		return fmt.Errorf("aaaserver: ask %s about a session: %w", host, err)
	}
	select {
	case err := <-answer:
		return err
	case <-conn.Done():
		return fmt.Errorf("aaaserver: ask %s about a session: %w", host, ErrNotConnected)
	case <-ctx.Done():
		return fmt.Errorf("aaaserver: %s does not answer: %w", host, context.Cause(ctx))
	}
}

// asked are the requests to an access server that it has not answered yet, by
// their identifiers. Its methods may be called at once.
type asked struct {
	mu  sync.Mutex
	all map[[2]uint32]chan error
}

func (a *asked) add(ids [2]uint32) <-chan error {
	answer := make(chan error, 1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all == nil {
		a.all = map[[2]uint32]chan error{}
	}
	a.all[ids] = answer
	return answer
}

func (a *asked) remove(ids [2]uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.all, ids)
}

// answered takes an answer and reports whether it was waited for.
func (a *asked) answered(m peer.Message) bool {
	ids := [2]uint32{m.HopByHop, m.EndToEnd}
	a.mu.Lock()
	defer a.mu.Unlock()
	answer, ok := a.all[ids]
	if !ok {
		return false
	}
	delete(a.all, ids)
	e := &RefusedError{}
	if code, ok := avp.Find(m.AVPs(), avp.ResultCodeAVP, 0); ok {
		e.Result, _ = code.Uint32() // 0 is no success
	}
	if text, ok := avp.Find(m.AVPs(), avp.ErrorMessage, 0); ok {
		e.Text = strings.ToValidUTF8(string(text.Data[:min(len(text.Data), maxFailed)]), "?")
	}
	if e.Result/1000 == 2 {
		answer <- nil
	} else {
		answer <- e
	}
	return true
}
