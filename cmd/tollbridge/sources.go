package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/asm/users/radius"
	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/spool"
)

// sources are where user bindings come from besides files.
type sources struct {
	radius      *radius.Server // nil without clients
	radiusConns []*net.UDPConn
}

// openSources opens what the configuration names.
func (b *bridge) openSources() error {
	r := b.cfg.Users.RADIUS
	if len(r.Clients) == 0 {
		return nil
	}
	cfg, err := radiusConfig(r)
	if err != nil {
		return err
	}
	cfg.Journal, cfg.Log = eventJournal{b.spool.Journal()}, b.log
	if b.sources.radius, err = radius.New(cfg); err != nil {
		return err
	}
	for _, a := range r.Listen {
		const key = "users.radius.listen"
		conn, err := net.ListenPacket("udp", a.String())
		if err != nil {
			return listenError(key, err)
		}
		b.closers = append(b.closers, conn.Close)
		b.log.Info("listening", "what", key, "address", conn.LocalAddr().String())
		b.sources.radiusConns = append(b.sources.radiusConns, conn.(*net.UDPConn))
	}
	return nil
}

// run takes bindings until ctx ends.
func (s *sources) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, conn := range s.radiusConns {
		g.Go(func() error { return s.radius.Serve(ctx, conn) })
	}
	return g.Wait()
}

// collect tells metrics what the sources count.
func (s *sources) collect(counter func(name, help string, value uint64, labels ...string)) {
	if s.radius == nil {
		return
	}
	stats := s.radius.Stats()
	counter("radius_strangers_total", "RADIUS packets from addresses of no client.", stats.Strangers)
	for name, c := range stats.Clients {
		for status, n := range map[string]uint64{
			"start": c.Starts, "interim": c.Interims, "stop": c.Stops, "reset": c.Resets, "other": c.Others, "ping": c.Pings,
		} {
			counter("radius_requests_total", "RADIUS requests of clients, repetitions apart.", n, "client", name, "status", status)
		}
		counter("radius_responses_total", "RADIUS responses sent.", c.Answered, "client", name)
		counter("radius_empty_total", "Starts without an address or a user.", c.Empty, "client", name)
		counter("radius_skewed_total", "Requests whose Event-Timestamp was not believed.", c.Skewed, "client", name)
		for what, n := range map[string]uint64{"answered": c.Repeated, "coalesced": c.Coalesced} {
			counter("radius_repetitions_total", "Requests that came again.", n, "client", name, "what", what)
		}
		counter("radius_overload_total", "Requests discarded since too many waited for the journal.", c.Overload, "client", name)
		for cause, n := range c.Malformed {
			counter("radius_malformed_total", "RADIUS packets discarded.", n, "client", name, "cause", cause.String())
		}
	}
}

// checkSources reports what openSources would, but opens nothing.
func checkSources(c config.Config) error {
	if len(c.Users.RADIUS.Clients) == 0 {
		return nil
	}
	_, err := radiusConfig(c.Users.RADIUS)
	return err
}

// radiusConfig reads the secrets, too.
func radiusConfig(r config.RADIUS) (radius.Config, error) {
	cfg := radius.Config{Realm: r.Realm, Idle: r.Idle, ClockTolerance: r.ClockTolerance, MaxDelay: r.MaxDelay}
	for _, list := range []struct {
		key   string
		names []string
		types *[]radius.AttributeType
	}{{"users.radius.user", r.User, &cfg.User}, {"users.radius.attributes", r.Attributes, &cfg.Attributes}} {
		for i, name := range list.names {
			t, err := radius.ParseAttributeType(name)
			if err != nil {
				return cfg, fmt.Errorf("%s[%d]: %w", list.key, i, err)
			}
			*list.types = append(*list.types, t)
		}
	}
	for i, c := range r.Clients {
		secret, err := c.Secret.Load()
		if err != nil {
			return cfg, fmt.Errorf("users.radius.clients[%d].secret: %w", i, err)
		}
		cfg.Clients = append(cfg.Clients, radius.Client{
			Name: c.Name, Prefixes: prefixes(c.Prefixes), Secret: secret, RequireMessageAuthenticator: c.RequireMessageAuthenticator,
		})
	}
	return cfg, nil
}

// An eventJournal takes the events of sources.
type eventJournal struct{ *spool.Journal }

// Append implements radius.Journal.
func (j eventJournal) Append(e users.Event) (uint64, error) {
	return j.Journal.Append(acct.EntryBinding, time.Now().UnixNano(), 0, e.AppendBinary(nil))
}
