package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"tollbridge/dict/avp"
)

// Connect exchanges capabilities on nc as its initiator: CER, then CEA. It
// takes nc over and closes it on error. A peer that refuses gives a *Refusal;
// one with another Origin-Host than Config.Peer an ErrIdentity; one without a
// common application a *Refusal with DIAMETER_NO_COMMON_APPLICATION.
func Connect(ctx context.Context, nc net.Conn, cfg Config) (*Conn, error) {
	c, err := newConn(nc, cfg)
	if err == nil {
		c.try, c.dialed = true, true
		err = c.exchange(ctx, func(context.Context) error { return c.connect() })
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("peer: connect to %v: %w", nc.RemoteAddr(), err)
	}
	return c, nil
}

// Accept exchanges capabilities on nc as its responder. It takes nc over and
// closes it on error, after it has told the peer why: DIAMETER_UNKNOWN_PEER
// for one that Config does not admit, or what its *Refusal says,
// DIAMETER_NO_COMMON_APPLICATION, ELECTION_LOST or another code for a
// connection too many, or what is wrong with its CER; nothing where ctx ends
// before that is known. A Config.Table has to be
// told that the connection is over, which Table.Run does.
func Accept(ctx context.Context, nc net.Conn, cfg Config) (*Conn, error) {
	c, err := newConn(nc, cfg)
	if err == nil {
		if err = c.exchange(ctx, c.accept); err != nil && cfg.Table != nil {
			cfg.Table.release(c)
		}
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("peer: accept %v: %w", nc.RemoteAddr(), err)
	}
	return c, nil
}

// exchange runs f within Config.Timeout and ctx.
func (c *Conn) exchange(ctx context.Context, f func(context.Context) error) error {
	if err := c.nc.SetDeadline(time.Now().Add(c.cfg.Timeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.nc.Close() })
	timed, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	err := f(timed)
	if !stop() {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	return c.nc.SetDeadline(time.Time{})
}

func (c *Conn) connect() error {
	var ids [2]uint32
	b := c.request(avp.CommandCapabilitiesExchange, &ids)
	b = c.local.appendCapabilities(b)
	avp.SetLength(b)
	if _, err := c.nc.Write(b); err != nil {
		return fmt.Errorf("send CER: %w", err)
	}
	m, err := c.next()
	if err != nil {
		return fmt.Errorf("read CEA: %w", err)
	}
	if m.Command != avp.CommandCapabilitiesExchange || m.Request() || !c.ours(m, &ids) {
		return fmt.Errorf("%w: command %d where a CEA should be", ErrProtocol, m.Command)
	}
	if err := refusal(m.AVPs()); err != nil {
		return err
	}
	if c.remote, err = parseNode(m.AVPs()); err != nil {
		return err
	}
	if want := c.cfg.Peer; want != "" && !avp.EqualIdentity(c.remote.OriginHost, want) {
		return fmt.Errorf("%w: %q, configured %q", ErrIdentity, c.remote.OriginHost, want)
	}
	return c.common()
}

// refusal returns what the AVPs of a CEA refuse, or nil.
func refusal(avps []byte) error {
	r := &Refusal{}
	for a, err := range avp.Scan(avps) {
		if err != nil {
			return err
		}
		switch {
		case a.Is(avp.ResultCodeAVP, 0):
			r.Code, _ = a.Uint32()
		case a.Is(avp.ErrorMessage, 0):
			r.Message = string(a.Data)
		case a.Is(avp.FailedAVP, 0):
			r.Failed = append(r.Failed, a.Data...)
		}
	}
	if r.Code/1000 == 2 {
		return nil
	}
	return r
}

// common reports, by a *Refusal, a peer without an application of Config.Node.
// That others of Config.Table have one in common is of no use to its owner.
func (c *Conn) common() error { return checkCommon(c.cfg.Node.filled(c.nc.LocalAddr()), c.remote) }

func checkCommon(local, remote Node) error {
	if common(local, remote) {
		return nil
	}
	return &Refusal{Code: avp.ResultNoCommonApplication, Message: fmt.Sprintf(
		"no common application: %s has accounting %v and authorization %v, %s has accounting %v and authorization %v",
		remote.OriginHost, remote.Accounting, remote.Auth, local.OriginHost, local.Accounting, local.Auth)}
}

func (c *Conn) accept(ctx context.Context) error {
	m, err := c.next()
	if err != nil {
		return fmt.Errorf("read CER: %w", err)
	}
	if m.Command != avp.CommandCapabilitiesExchange || !m.Request() {
		return fmt.Errorf("%w: command %d where a CER should be", ErrProtocol, m.Command)
	}
	if c.remote, err = parseNode(m.AVPs()); err == nil {
		err = c.admit(ctx)
	}
	var refused *Refusal
	if err != nil && !errors.As(err, &refused) {
		return err // nothing is decided, as we stop or the time is over
	}
	if _, writeErr := c.nc.Write(c.appendCEA(nil, m, refused)); writeErr != nil && err == nil {
		err = fmt.Errorf("send CEA: %w", writeErr)
	}
	return err
}

func (c *Conn) admit(ctx context.Context) error {
	unknown := func(text string) error { return &Refusal{Code: avp.ResultUnknownPeer, Message: text} }
	if want := c.cfg.Peer; want != "" && !avp.EqualIdentity(c.remote.OriginHost, want) {
		return unknown(fmt.Sprintf("Origin-Host %s is not expected here", c.remote.OriginHost))
	}
	if avp.EqualIdentity(c.remote.OriginHost, c.local.OriginHost) {
		return unknown("Origin-Host is this node's own")
	}
	if c.cfg.Admit != nil {
		if err := c.cfg.Admit(c.remote); err != nil {
			if refused := (*Refusal)(nil); errors.As(err, &refused) {
				return refused
			}
			return unknown(err.Error())
		}
	}
	err := c.common()
	if err == nil && c.cfg.Table != nil {
		err = c.cfg.Table.accept(ctx, c)
	}
	return err
}

// appendCEA appends the answer to a CER: success, or a refusal.
func (c *Conn) appendCEA(b []byte, m Message, refused *Refusal) []byte {
	r := Refusal{Code: avp.ResultSuccess}
	if refused != nil {
		r = *refused
	}
	start := len(b)
	b = AppendAnswerHeader(b, m, r.Code)
	b = avp.AppendUint32(b, avp.ResultCodeAVP, 0, avp.FlagMandatory, r.Code)
	b = c.local.appendCapabilities(b)
	b = appendExplanation(b, r.Message, r.Failed)
	avp.SetLength(b[start:])
	return b
}
