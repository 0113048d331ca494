package collect

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sync"
)

// An Exporter is a sender of IPFIX that is known by name, whatever addresses
// and ports it sends from.
type Exporter struct {
	Name     string
	Prefixes []netip.Prefix
}

// An exporter is what a Process keeps of one: its counters, and how many
// sessions and connections hold on to it.
type exporter struct {
	counters
	name string

	// guarded by exporters.mu
	refs        int
	connections int
}

// exporters finds the exporter of an address.
type exporters struct {
	maxExporters, maxConnections, maxExporterConnections int

	mu          sync.Mutex
	prefixes    []exporterPrefix // the longest first; empty where everyone may export
	named       []*exporter
	addresses   map[netip.Addr]*exporter
	connections int
	others      counters // of strangers, and of exporters that were forgotten
}

type exporterPrefix struct {
	netip.Prefix
	*exporter
}

func newExporters(cfg Config) (*exporters, error) {
	x := &exporters{
		maxExporters:           cfg.MaxExporters,
		maxConnections:         cfg.MaxConnections,
		maxExporterConnections: cfg.MaxExporterConnections,
		addresses:              make(map[netip.Addr]*exporter),
	}
	names := make(map[string]bool)
	owners := make(map[netip.Prefix]string)
	for i, c := range cfg.Exporters {
		switch {
		case c.Name == "":
			return nil, fmt.Errorf("collect: Config.Exporters[%d]: a name is required", i)
		case names[c.Name]:
			return nil, fmt.Errorf("collect: Config.Exporters[%d]: the name %q is taken", i, c.Name)
		case len(c.Prefixes) == 0:
			return nil, fmt.Errorf("collect: Config.Exporters[%d]: %s has no prefix", i, c.Name)
		}
		names[c.Name] = true
		e := &exporter{name: c.Name}
		x.named = append(x.named, e)
		for _, p := range c.Prefixes {
			if !p.IsValid() {
				return nil, fmt.Errorf("collect: Config.Exporters[%d]: %s has an invalid prefix", i, c.Name)
			}
			p = unmapPrefix(p).Masked()
			if owner, taken := owners[p]; taken {
				return nil, fmt.Errorf("collect: Config.Exporters[%d]: %s: %v belongs to %s", i, c.Name, p, owner)
			}
			owners[p] = c.Name
			x.prefixes = append(x.prefixes, exporterPrefix{p, e})
		}
	}
	slices.SortStableFunc(x.prefixes, func(a, b exporterPrefix) int { return cmp.Compare(b.Bits(), a.Bits()) })
	return x, nil
}

// unmapPrefix returns the IPv4 prefix of an IPv4-mapped IPv6 one.
func unmapPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// acquire returns the exporter of an address. It is not forgotten before its
// release. Nil is a stranger, or one too many.
func (x *exporters) acquire(addr netip.Addr) *exporter {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.acquireLocked(addr)
}

func (x *exporters) acquireLocked(addr netip.Addr) *exporter {
	e := x.findLocked(addr.Unmap().WithZone(""))
	if e == nil {
		x.others.refused.Add(1)
		return nil
	}
	e.refs++
	return e
}

func (x *exporters) findLocked(addr netip.Addr) *exporter {
	if len(x.named) > 0 {
		for _, p := range x.prefixes {
			if p.Contains(addr) {
				return p.exporter
			}
		}
		return nil
	}
	e := x.addresses[addr]
	if e == nil && (len(x.addresses) < x.maxExporters || x.forgetLocked()) {
		e = &exporter{name: addr.String()}
		x.addresses[addr] = e
	}
	return e
}

// forgetLocked makes room by forgetting an exporter without a session, any
// one: who floods the table with false addresses fills it with such.
func (x *exporters) forgetLocked() bool {
	for addr, e := range x.addresses {
		if e.refs == 0 {
			x.others.add(&e.counters)
			delete(x.addresses, addr)
			return true
		}
	}
	return false
}

func (x *exporters) release(e *exporter) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.refs--
}

// connect is acquire for a TCP connection, within its limits.
func (x *exporters) connect(addr netip.Addr) *exporter {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.acquireLocked(addr)
	if e == nil {
		return nil
	}
	if x.connections >= x.maxConnections || e.connections >= x.maxExporterConnections {
		e.refused.Add(1)
		e.refs--
		return nil
	}
	x.connections++
	e.connections++
	return e
}

func (x *exporters) disconnect(e *exporter) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.connections--
	e.connections--
	e.refs--
}
