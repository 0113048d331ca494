package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/aaaserver"
	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/asm/users/nasreq"
	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/dict"
	"tollbridge/dict/avp"
)

// An entrance takes the Accounting-Requests that become accounting records
// here into the journal: those that carry flows, those for other realms, and
// those of access servers. Requests that come before data is collected wait;
// afterwards they are refused, so that a stopping daemon works off what it has
// taken.
type entrance struct {
	journal journal
	log     *slog.Logger
	access  *accessServers
	opened  chan struct{} // closed when data is collected
	closed  chan struct{} // closed when it is no more, or never will be

	empty, unreadable atomic.Uint64 // requests of access servers that told of nothing, or could not be used
}

// errStops says that the entrance is closed.
var errStops = errors.New("the daemon stops")

// wait returns nil while data is collected, which it waits for.
func (e *entrance) wait(ctx context.Context) error {
	select {
	case <-e.opened:
	case <-e.closed:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-e.closed:
		return errStops
	default:
		return nil
	}
}

// Take implements aaaserver.Pipeline.
func (e *entrance) Take(ctx context.Context, requests []acct.Request) error {
	if err := e.wait(ctx); errors.Is(err, errStops) {
		return fmt.Errorf("%w: %w", err, aaaserver.ErrBusy)
	} else if err != nil {
		return err
	}
	var last uint64
	now := time.Now()
	for _, r := range requests {
		kind, data, err := e.entryOf(r, now)
		switch {
		case errors.Is(err, errNotStored):
			return err
		case err != nil:
			e.unreadable.Add(1)
			e.log.Debug("request of an access server can't be used", "origin_host", r.Peer, "error", err)
			continue
		case data == nil:
			e.empty.Add(1)
			continue
		}
		if last, err = e.journal.Append(kind, now.UnixNano(), 0, data); err != nil {
			return err
		}
	}
	if err := e.journal.Wait(ctx, last); err != nil {
		return err
	}
	e.durable(last)
	return nil
}

// durable drops what was kept in case that entries of the journal are lost.
func (e *entrance) durable(entry uint64) {
	if err := e.access.durable(entry); err != nil {
		e.log.Error("the end of access servers' sessions is journaled once more at the next start", "error", err)
	}
}

// resume journals what restarts of access servers have ended and a crash may
// have kept from the journal, and waits until it is durable.
func (e *entrance) resume(ctx context.Context, now time.Time) error {
	if e.access == nil {
		return nil // there is no server
	}
	ends := e.access.ends()
	if len(ends) == 0 {
		return nil
	}
	var last uint64
	for _, end := range ends {
		var err error
		if last, err = e.end(&end, now); err != nil {
			return err
		}
	}
	if err := e.journal.Wait(ctx, last); err != nil {
		return err
	}
	e.durable(last)
	return nil
}

// end journals the end of an access server's sessions.
func (e *entrance) end(end *users.Event, now time.Time) (entry uint64, err error) {
	if entry, err = e.journal.Append(acct.EntryBinding, now.UnixNano(), 0, end.AppendBinary(nil)); err == nil {
		e.access.journaled(end, entry)
	}
	return entry, err
}

// errNotStored says that what a request told could not be stored, so that it
// must come again.
var errNotStored = errors.New("the access server's Origin-State-Id can't be stored")

// entryOf returns a request as the journal has it, no data where it says
// nothing.
func (e *entrance) entryOf(r acct.Request, arrived time.Time) (acct.EntryKind, []byte, error) {
	if r.Task != acct.RequestBinding {
		data, err := r.AppendBinary(nil)
		return acct.EntryRequest, data, err
	}
	event, ok, err := nasreq.Read(r.AVPs, arrived)
	if err != nil || !ok {
		return 0, nil, err
	}
	end, rose, err := e.access.see(&event, r.AVPs)
	if err != nil {
		return 0, nil, err
	}
	if rose {
		e.log.Info("access server has restarted: its former sessions are over", "origin_host", r.Peer)
		if _, err := e.end(&end, arrived); err != nil {
			return 0, nil, fmt.Errorf("%w: %w", errNotStored, err)
		}
	}
	return acct.EntryBinding, event.AppendBinary(nil), nil
}

// openServer opens the Diameter entrance with the accounting application
// behind it, if there is to be one.
func (b *bridge) openServer() error {
	if len(b.diameter)+len(b.diameterTLS) == 0 {
		return nil
	}
	var err error
	if b.cdrs, err = b.spool.OpenCDRs(); err != nil {
		return err
	}
	b.closers = append(b.closers, b.cdrs.Close)
	if s := b.cdrs.Salvaged(); s != nil {
		b.log.Error("CDRs were damaged and have been salvaged", "file", s.File, "damaged_file", s.Kept, "report", s.Kept+".json", "found", s.Found)
	}
	s := b.cfg.Server
	var credentials *peer.Credentials
	if s.TLS != (config.TLS{}) {
		if credentials, err = peer.LoadCredentials(s.TLS.Certificate, s.TLS.Key, s.TLS.CA, b.log); err != nil {
			return fmt.Errorf("server.tls: %w", err)
		}
	}
	b.entrance.journal, b.entrance.log = b.journal, b.log
	if b.entrance.access, err = openAccessServers(context.Background(), b.spool, filepath.Join(b.cfg.Data, "access-servers.json"), b.log); err != nil {
		return fmt.Errorf("server.accessServers: %w", err)
	}
	if b.cfg.OneNode() {
		b.table = peer.NewTable(0)
	}
	cfg := aaaserver.Config{
		Table:       b.table,
		OriginHost:  s.OriginHost,
		OriginRealm: b.cfg.Identity.OriginRealm,
		StateID:     b.spool.Meta().OriginStateID,
		Store:       b.cdrs,
		Dictionary:  dict.For(uint32(b.cfg.Delivery.VendorID)),
		Realms:      s.Realms,
		Pipeline:    &b.entrance,

		InterimInterval: s.InterimInterval,
		Flows:           s.Flows == config.FlowsPipeline,
		Forward:         s.Forward,
		Aliases:         []string{b.cfg.Identity.OriginHost},
		Held:            b.spool.Journal().Held,
		Peers:           b.clients(),
		Credentials:     credentials,
		Watchdog:        b.cfg.Delivery.Watchdog,
		Log:             b.log,
	}
	if len(s.AccessServers) > 0 {
		cfg.Applications = []uint32{avp.ApplicationAccounting, avp.ApplicationNASREQ} // RFC 7155, Section 1.6
		cfg.Controls = b.cfg.CreditControl.AtZero != "report"
	}
	if s.Plaintext {
		cfg.Allow = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	}
	b.server, err = aaaserver.New(cfg)
	return err
}

// clients returns who may connect to the Diameter entrance. Where it is this
// daemon that delivers to it, that may too.
func (b *bridge) clients() []aaaserver.Peer {
	s := b.cfg.Server
	var peers []aaaserver.Peer
	for _, host := range s.Clients {
		peers = append(peers, aaaserver.Peer{Host: host})
	}
	for _, host := range s.AccessServers {
		peers = append(peers, aaaserver.Peer{Host: host, Access: true})
	}
	for _, r := range s.Relays {
		peers = append(peers, aaaserver.Peer{Host: r.Host, Realms: r.Realms})
	}
	if len(peers) > 0 && b.cfg.Embedded() {
		peers = append(peers, aaaserver.Peer{Host: b.cfg.Identity.OriginHost, Realms: []string{b.cfg.Identity.OriginRealm}})
	}
	return peers
}
