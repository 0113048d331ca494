package aaaclient

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/aaaserver"
	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

// Two operators deliver to each other, and both connect at once. Client and
// server are Diameter nodes of their own names here, so each pair of nodes has
// one connection, and there is nothing to elect (RFC 6733, Section 5.6.4).
func TestBothConnectAtOnce(t *testing.T) {
	type site struct {
		ln     net.Listener
		server *aaaserver.Server
		outbox *outboxModel
		client *Client
	}
	sites := map[string]*site{"a": {}, "b": {}}
	for name, s := range sites {
		var err error
		if s.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if s.server, err = aaaserver.New(aaaserver.Config{OriginHost: "aaa." + name + ".example", OriginRealm: name + ".example", Store: &storeModel{}}); err != nil {
			t.Fatal(err)
		}
	}
	var begin sync.WaitGroup
	begin.Add(1)
	var stops []func()
	for name, s := range sites {
		other, there := sites["b"], "b"
		if name == "b" {
			other, there = sites["a"], "a"
		}
		s.outbox = newOutbox()
		s.outbox.add(records(20, 10)...)
		cfg := client(s.outbox, other.ln.Addr().String())
		cfg.OriginHost, cfg.OriginRealm, cfg.DestinationRealm = "bridge."+name+".example", name+".example", there+".example"
		cfg.Peers[0].Host = "aaa." + there + ".example"
		var err error
		if s.client, err = New(cfg); err != nil {
			t.Fatal(err)
		}
		stops = append(stops,
			background(t, func(ctx context.Context) error { begin.Wait(); return s.client.Run(ctx) }),
			background(t, func(ctx context.Context) error { return s.server.Serve(ctx, s.ln) }))
	}
	begin.Done()
	for _, s := range sites {
		settled(t, s.outbox, s.client)
	}
	for _, stop := range stops {
		stop()
	}
	for name, s := range sites {
		s.outbox.check(t, acct.Acknowledged)
		if got := s.server.Stats(); got.Stored != 200 || got.Connections != 1 || got.Refused != 0 {
			t.Errorf("server of %s: %+v", name, got)
		}
	}
}

// A peer that has connected to us at once, by its own book, and won, says so:
// we come again, and say what it means (RFC 6733, Sections 5.6.4 and 7.1.4).
func TestElectionLost(t *testing.T) {
	store := &storeModel{}
	server, err := aaaserver.New(aaaserver.Config{OriginHost: "acct.home.example", OriginRealm: "home.example", Store: store})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) error {
		nc, err := ln.Accept()
		if err != nil {
			return err
		}
		_, err = peer.Accept(ctx, nc, peer.Config{
			Node:  peer.Node{OriginHost: "acct.home.example", OriginRealm: "home.example"},
			Admit: func(peer.Node) error { return &peer.Refusal{Code: avp.ResultElectionLost} },
		})
		if err == nil {
			t.Error("the loser of an election is taken")
		}
		return server.Serve(ctx, ln)
	})
	outbox := newOutbox()
	outbox.add(records(1, 2)...)
	cfg := client(outbox, ln.Addr().String())
	var log bytes.Buffer
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	c, stop := runClient(t, cfg)
	settled(t, outbox, c)
	stop()
	outbox.check(t, acct.Acknowledged)
	if !strings.Contains(log.String(), "4003 ELECTION_LOST (the nodes have connected to one another at once") {
		t.Errorf("logged %s", log.String())
	}
}
