package meter

import (
	"context"
	"net/netip"
	"time"
)

// A pull is a request for flows of the cache, for the goroutine that meters.
type pull struct {
	of   netip.Prefix
	done chan pulled // has room for one
}

type pulled struct {
	at  time.Time
	err error
}

// Pull exports now what the flow cache has from or to some addresses (RFC 5472,
// Section 4.4); ::/0 stands for all. The flows end with ForcedEnd and, where
// they go on, begin anew. It returns up to when packets are in what was
// exported. Unlike the other methods it may be called by any goroutine while
// one meters, which serves it between two batches of packets; while none does
// it waits.
func (m *Meter) Pull(ctx context.Context, of netip.Prefix) (time.Time, error) {
	p := &pull{of: of, done: make(chan pulled, 1)}
	m.mu.Lock()
	m.pulls = append(m.pulls, p)
	m.asked.Store(true)
	m.mu.Unlock()
	select {
	case d := <-p.done:
		return d.at, d.err
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}

// servePulls exports what was asked for.
func (m *Meter) servePulls(ctx context.Context) error {
	m.mu.Lock()
	pulls := m.pulls
	m.pulls = nil
	m.asked.Store(false)
	m.mu.Unlock()
	for _, p := range pulls {
		err := m.exportOf(ctx, p.of)
		p.done <- pulled{time.Unix(0, m.now).UTC(), err}
		if err != nil {
			return err
		}
	}
	return nil
}

// exportOf exports the flows of addresses.
func (m *Meter) exportOf(ctx context.Context, of netip.Prefix) error {
	all := of.Bits() == 0 && of.Addr().Is6()
	for number := range m.cache.high {
		f := m.cache.at(number)
		if f.packets == 0 || !all && !of.Contains(f.key.addr(keySource)) && !of.Contains(f.key.addr(keyDestination)) {
			continue
		}
		if err := m.expel(ctx, number, ForcedEnd); err != nil {
			return err
		}
	}
	return nil
}

// addr returns the address at an offset of the key.
func (k *key) addr(offset int) netip.Addr {
	if k[keyVersion] == 4 {
		return netip.AddrFrom4([4]byte(k[offset : offset+4]))
	}
	return netip.AddrFrom16([16]byte(k[offset : offset+16]))
}
