package aaaclient

import (
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

// What is pending when Run is stopped still goes out, records that came to the
// outbox last included, as long as peers answer.
func TestDrain(t *testing.T) {
	outbox := newOutbox()
	outbox.add(records(8, 5)...)
	arrived, release := make(chan struct{}), make(chan struct{})
	server := &rogue{act: func(c *rogueConn, r rogueRequest) {
		if r.n == 0 {
			close(arrived)
			<-release
		}
		c.reply(r, avp.ResultSuccess)
	}}
	cfg := client(outbox, server.listen(t))
	cfg.Timeout, cfg.Window, cfg.Drain = time.Hour, 2, time.Hour
	_, stop := runClient(t, cfg)
	<-arrived
	more := records(9, 2)
	outbox.add(more[len(more)-2:]...) // of a session of its own
	go close(release)
	stop()
	outbox.check(t, acct.Acknowledged)
}

// A peer that is down, or silent, or has told to come again later, holds no stop
// up, however long draining may take.
func TestDrainWaitsForNobody(t *testing.T) {
	for _, row := range []struct {
		name  string
		act   func(c *rogueConn, r rogueRequest) // nil: the peer is down
		spoil func(*Config)
	}{
		{"down", nil, func(*Config) {}},
		{"silent", func(*rogueConn, rogueRequest) {}, func(cfg *Config) { cfg.Grace = 100 * time.Millisecond }},
		{"busy", func(c *rogueConn, r rogueRequest) { c.reply(r, avp.ResultTooBusy) }, func(cfg *Config) { cfg.RetryMin, cfg.RetryMax = time.Hour, time.Hour }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			outbox := newOutbox()
			outbox.add(records(3, 3)...)
			address := "127.0.0.1:1"
			asked := make(chan struct{}, 100)
			if row.act == nil {
				asked <- struct{}{}
			} else {
				server := &rogue{act: func(c *rogueConn, r rogueRequest) {
					row.act(c, r)
					asked <- struct{}{}
				}}
				address = server.listen(t)
			}
			cfg := client(outbox, address)
			cfg.Timeout, cfg.Drain = time.Hour, time.Hour
			row.spoil(&cfg)
			_, stop := runClient(t, cfg)
			<-asked
			stop() // fails the test where it takes long
			outbox.check(t, acct.Pending)
		})
	}
}
