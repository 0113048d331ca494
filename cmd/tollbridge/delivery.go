package main

import (
	"fmt"
	"log/slog"

	"tollbridge/aaaclient"
	"tollbridge/aaaclient/peer"
	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/dict"
)

// delivery returns what brings the outbox's records to the configured peers,
// or to our own server.
func (b *bridge) delivery() (*aaaclient.Client, error) {
	peers, err := peers(b.cfg.Delivery, b.log)
	if err != nil {
		return nil, err
	}
	if b.cfg.Embedded() {
		peers = []aaaclient.Peer{{Host: b.cfg.Server.OriginHost, Address: b.diameter[0].Addr().String()}}
	}
	optional := make([]uint32, len(b.cfg.Delivery.OptionalAVPs))
	for i, code := range b.cfg.Delivery.OptionalAVPs {
		optional[i] = uint32(code)
	}
	for i := range peers {
		peers[i].Optional = optional
	}
	return aaaclient.New(aaaclient.Config{
		OriginHost:       b.cfg.Identity.OriginHost,
		OriginRealm:      b.cfg.Identity.OriginRealm,
		StateID:          b.spool.Meta().OriginStateID,
		DestinationRealm: b.cfg.Delivery.DestinationRealm,
		Peers:            peers,
		Routes:           routes(b.cfg.Delivery),
		Fates:            fates(b.cfg.Delivery),
		Outbox:           b.online(),
		Dictionary:       dict.For(uint32(b.cfg.Delivery.VendorID)),
		Window:           b.cfg.Delivery.Window,
		Timeout:          b.cfg.Delivery.Timeout,
		Connect:          b.cfg.Delivery.Reconnect,
		Watchdog:         b.cfg.Delivery.Watchdog,
		Log:              b.log,
	})
}

// peers returns the configured peers. Those over TLS share our certificate.
func peers(d config.Delivery, log *slog.Logger) ([]aaaclient.Peer, error) {
	var all []aaaclient.Peer
	var credentials *peer.Credentials
	for _, p := range d.Peers {
		out := aaaclient.Peer{Host: p.Host, Address: p.Address.String(), Priority: p.Priority, Weight: p.Weight}
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
