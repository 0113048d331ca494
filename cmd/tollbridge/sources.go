package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/asm/users/dhcp"
	"tollbridge/asm/users/radius"
	"tollbridge/asm/users/sql"
	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/spool"
)

// sources are where user bindings come from besides files.
type sources struct {
	journal     journal
	radius      *radius.Server // nil without clients
	radiusConns []*net.UDPConn
	databases   []*sql.Source
	leases      []*dhcp.Source
}

// openSources opens what the configuration names.
func (b *bridge) openSources() error {
	b.sources.journal = b.journal
	if err := b.openRADIUS(); err != nil {
		return err
	}
	for i, c := range b.cfg.Users.SQL {
		s, err := newDatabase(i, c, b.log)
		if err != nil {
			return err
		}
		b.sources.databases = append(b.sources.databases, s)
	}
	for i, c := range b.cfg.Users.Leases {
		cfg, err := leasesConfig(i, c)
		if err != nil {
			return err
		}
		cfg.Journal, cfg.Poll, cfg.Log = eventJournal{b.spool.Journal()}, b.cfg.Users.Reload, b.log
		s, err := dhcp.New(cfg)
		if err != nil {
			return err
		}
		b.sources.leases = append(b.sources.leases, s)
	}
	return nil
}

// leasesConfig returns what the configuration says of lease file i.
func leasesConfig(i int, c config.Leases) (dhcp.Config, error) {
	cfg := dhcp.Config{File: c.File}
	for j, name := range c.User {
		identity, err := dhcp.ParseIdentity(name)
		if err != nil {
			return cfg, fmt.Errorf("users.leases[%d].user[%d]: %w", i, j, err)
		}
		cfg.User = append(cfg.User, identity)
	}
	return cfg, nil
}

// openRADIUS opens the RADIUS server and its sockets, if it has a client.
func (b *bridge) openRADIUS() error {
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
	return listenOn(b, &b.sources.radiusConns, "users.radius.listen", r.Listen, listenUDP)
}

// newDatabase returns database i of the configuration.
func newDatabase(i int, c config.SQL, log *slog.Logger) (*sql.Source, error) {
	var password []byte
	if c.Password != (config.Secret{}) {
		var err error
		if password, err = c.Password.Load(); err != nil {
			return nil, fmt.Errorf("users.sql[%d].password: %w", i, err)
		}
	}
	s, err := sql.New(sql.Config{
		Name: c.Name, Connect: c.Connect, Password: password,
		Query: c.Query, Interval: c.Interval, Channel: c.Channel, Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("users.sql[%d]: %w", i, err)
	}
	return s, nil
}

// run takes bindings until ctx ends.
func (s *sources) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, conn := range s.radiusConns {
		g.Go(func() error { return s.radius.Serve(ctx, conn) })
	}
	for _, db := range s.databases {
		g.Go(func() error {
			// What it gave before a restart counts until it answers.
			return db.Run(ctx, func(f users.File) error {
				return s.journal.users(time.Now(), "sql:"+db.Name(), f.Bindings)
			})
		})
	}
	for _, l := range s.leases {
		g.Go(func() error { return l.Run(ctx) })
	}
	return g.Wait()
}

// collect tells metrics what the sources count.
func (s *sources) metrics(counter counter, gauge gauge) {
	for _, db := range s.databases {
		stats := db.Stats()
		counter("sql_queries_total", "Queries that gave all bindings of a database.", stats.Queries, "database", db.Name())
		counter("sql_failures_total", "Attempts that gave none.", stats.Failures, "database", db.Name())
		gauge("sql_bindings", "Bindings of the latest answer.", float64(stats.Bindings), "database", db.Name())
		gauge("sql_failing", "1 while the latest attempt failed.", truth(stats.Failing), "database", db.Name())
	}
	for _, l := range s.leases {
		stats := l.Stats()
		gauge("dhcp_leases", "Leases that the file has as active.", float64(stats.Leases), "file", l.File())
		gauge("dhcp_failing", "1 while the file can't be read.", truth(stats.Failing), "file", l.File())
		counter("dhcp_events_total", "Beginnings, renewals and ends of leases that were journaled.", stats.Events, "file", l.File())
		counter("dhcp_malformed_total", "Lines or declarations that could not be read.", stats.Malformed, "file", l.File())
		counter("dhcp_nameless_total", "Leases that have none of the identities that name the user.", stats.Nameless, "file", l.File())
	}
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
	_, err := radiusConfig(c.Users.RADIUS)
	errs := []error{err}
	for i, s := range c.Users.SQL {
		_, err := newDatabase(i, s, nil)
		errs = append(errs, err)
	}
	for i, l := range c.Users.Leases {
		_, err := leasesConfig(i, l)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
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

// Append implements the Journals of radius and dhcp.
func (j eventJournal) Append(e users.Event) (uint64, error) {
	return j.Journal.Append(acct.EntryBinding, time.Now().UnixNano(), 0, e.AppendBinary(nil))
}
