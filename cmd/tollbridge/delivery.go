package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"tollbridge/aaaclient"
	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/cmd/tollbridge/internal/profile"
	"tollbridge/dict"
)

// openDelivery opens what brings the outbox's records to the configured peers,
// or to our own server.
func (b *bridge) openDelivery() error {
	b.quotas = quotas(b.cfg.Delivery)
	peers, err := peers(b.cfg.Delivery, b.log)
	if err != nil {
		return err
	}
	if b.cfg.Embedded() {
		peers = []aaaclient.Peer{{Host: b.cfg.Server.OriginHost, Address: b.diameter[0].Addr().String()}}
	}
	if b.demands, err = openDemands(context.Background(), b.spool, b.log); err != nil {
		return fmt.Errorf("delivery: %w", err)
	}
	for i := range peers {
		peers[i].Realtime = b.demands.of(peers[i].Address)
	}
	profiles, err := profile.Store(context.Background(), b.cfg.Delivery, b.spool.Outbox())
	if err != nil {
		return fmt.Errorf("delivery: %w", err)
	}
	b.client, err = aaaclient.New(aaaclient.Config{
		Table:            b.table,
		OriginHost:       b.cfg.Identity.OriginHost,
		OriginRealm:      b.cfg.Identity.OriginRealm,
		StateID:          b.spool.Meta().OriginStateID,
		DestinationRealm: b.cfg.Delivery.DestinationRealm,
		Peers:            peers,
		Routes:           routes(b.cfg.Delivery),
		Fates:            fates(b.cfg.Delivery),
		Profiles:         profiles,
		Outbox:           b.online(),
		Dictionary:       dict.For(uint32(b.cfg.Delivery.VendorID)),
		Window:           b.cfg.Delivery.Window,
		Timeout:          b.cfg.Delivery.Timeout,
		Drain:            b.cfg.Delivery.Drain,
		Connect:          b.cfg.Delivery.Reconnect,
		Watchdog:         b.cfg.Delivery.Watchdog,
		Obey:             b.obey,
		Log:              b.log,
	})
	return err
}

// obey puts the interim intervals that answers ask for into the journal. It
// keeps to ctx even where Append blocks.
func (b *bridge) obey(ctx context.Context, list []acct.InterimInterval) error {
	if err := b.entrance.wait(ctx); err != nil {
		return fmt.Errorf("wait until data is collected: %w", err)
	}
	if err := b.journal.Stats().Waits; err != nil {
		return fmt.Errorf("the journal waits: %w", err)
	}
	if !b.obeying.CompareAndSwap(false, true) {
		return errors.New("the journal is still being given those before")
	}
	data := acct.AppendInterimIntervals(nil, list)
	result := make(chan error, 1)
	go func() {
		defer b.obeying.Store(false)
		position, err := b.journal.Append(acct.EntryInterim, time.Now().UnixNano(), 0, data)
		if err == nil {
			err = b.journal.Wait(ctx, position)
		}
		result <- err
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// peers returns the configured peers. Those over TLS share our certificate.
func peers(d config.Delivery, log *slog.Logger) ([]aaaclient.Peer, error) {
	var all []aaaclient.Peer
	var credentials *peer.Credentials
	for _, p := range d.Peers {
		out := aaaclient.Peer{Host: p.Host, Address: p.Address.String(), Priority: p.Priority, Weight: p.Weight, SCTP: p.SCTP}
		if p.TLS {
			if credentials == nil {
				var err error
				if credentials, err = peer.LoadCredentials(d.TLS.Certificate, d.TLS.Key, d.TLS.CA, log); err != nil {
					return nil, fmt.Errorf("delivery.tls: %w", err)
				}
			}
			out.TLS = credentials
		}
		all = append(all, out)
	}
	return all, nil
}

// routes returns which peers take which realms' records: one route for each
// entry of realms, and one for all other realms.
func routes(d config.Delivery) []aaaclient.Route {
	var all []aaaclient.Route
	for _, r := range d.Realms {
		all = append(all, aaaclient.Route{Realms: r.Realms, Peers: d.PeersOf(r), LearnHost: r.LearnHost, Rate: r.Rate})
	}
	return append(all, aaaclient.Route{Peers: d.DefaultPeers()})
}

func fates(d config.Delivery) map[aaaclient.Code]aaaclient.Fate {
	all := map[aaaclient.Code]aaaclient.Fate{}
	for _, c := range d.ResultCodes {
		for _, f := range []aaaclient.Fate{aaaclient.Settle, aaaclient.Wait, aaaclient.Reroute, aaaclient.Quarantine} {
			if f.String() == string(c.Fate) {
				all[aaaclient.Code{Vendor: uint32(c.Vendor), Result: uint32(c.Code)}] = f
			}
		}
	}
	return all
}

// A quota is how many records of a partner's realms wait, and how many may
// before there is an alarm.
type quota struct {
	realms  []string
	most    uint64
	pending atomic.Uint64
	alarm   bool
}

func quotas(d config.Delivery) []*quota {
	var all []*quota
	for _, r := range d.Realms {
		if r.MaxPending > 0 {
			all = append(all, &quota{realms: r.Realms, most: uint64(r.MaxPending)})
		}
	}
	return all
}

// countQuotas counts what waits for each, and says when it becomes too much
// and when that is over.
func (b *bridge) countQuotas(ctx context.Context) error {
	for _, l := range b.quotas {
		n, err := b.spool.Outbox().CountOf(ctx, func(realm []byte) bool {
			for _, r := range l.realms {
				if strings.EqualFold(r, string(realm)) {
					return true
				}
			}
			return false
		})
		if err != nil {
			return err
		}
		l.pending.Store(n)
		if over := n > l.most; over != l.alarm {
			if l.alarm = over; over {
				b.log.Error("too many records wait for a partner", "realms", strings.Join(l.realms, " "), "pending", n, "maxPending", l.most)
			} else {
				b.log.Info("few records wait for a partner again", "realms", strings.Join(l.realms, " "), "pending", n)
			}
		}
	}
	return nil
}
