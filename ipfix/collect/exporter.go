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
	Prefixes []netip.Prefix // of the addresses that it uses over UDP and TCP

	// CertificateNames are the DNS names, or the common name where there is
	// none, that its certificate for TLS and DTLS may have. A wildcard is a
	// name like any other.
	CertificateNames []string
}

// An exporter is what a Process keeps of one: its counters, and how many
// sessions and connections hold on to it.
type exporter struct {
	counters
	name  string
	lines *ration // of the log, shared by those that are not configured

	// guarded by exporters.mu
	refs        int
	connections int
}

// exporters finds the exporter of an address or a certificate.
type exporters struct {
	maxExporters, maxConnections, maxExporterConnections int

	mu          sync.Mutex
	prefixes    []exporterPrefix     // the longest first
	certified   map[string]*exporter // by certificate name
	named       []*exporter          // empty where everyone may export
	remembered  map[string]*exporter // by address or certificate name, where everyone may
	connections int
	others      counters // of strangers, and of exporters that were forgotten
	lines       ration   // of the log, for those who are remembered
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
		certified:              make(map[string]*exporter),
		remembered:             make(map[string]*exporter),
	}
	names := make(map[string]bool)
	owners := make(map[netip.Prefix]string)
	for i, c := range cfg.Exporters {
		switch {
		case c.Name == "":
			return nil, fmt.Errorf("collect: Config.Exporters[%d]: a name is required", i)
		case names[c.Name]:
			return nil, fmt.Errorf("collect: Config.Exporters[%d]: the name %q is taken", i, c.Name)
		case len(c.Prefixes) == 0 && len(c.CertificateNames) == 0:
			return nil, fmt.Errorf("collect: Config.Exporters[%d]: %s has no prefix and no certificate name", i, c.Name)
		}
		names[c.Name] = true
		e := &exporter{name: c.Name, lines: new(ration)}
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
		for _, n := range c.CertificateNames {
			n = canonicalName(n)
			if n == "" {
				return nil, fmt.Errorf("collect: Config.Exporters[%d]: %s has an empty certificate name", i, c.Name)
			}
			if owner, taken := x.certified[n]; taken {
				return nil, fmt.Errorf("collect: Config.Exporters[%d]: %s: certificate name %s belongs to %s", i, c.Name, n, owner.name)
			}
			x.certified[n] = e
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
	return x.holdLocked(x.ofAddrLocked(addr))
}

// acquireNames is acquire for a certificate with such names.
func (x *exporters) acquireNames(names []string) *exporter {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.holdLocked(x.ofNamesLocked(names))
}

// holdLocked keeps e from being forgotten, or counts a refusal where there is
// none.
func (x *exporters) holdLocked(e *exporter) *exporter {
	if e == nil {
		x.others.refused.Add(1)
		return nil
	}
	e.refs++
	return e
}

func (x *exporters) ofAddrLocked(addr netip.Addr) *exporter {
	addr = addr.Unmap().WithZone("")
	if len(x.named) == 0 {
		return x.rememberLocked(addr.String())
	}
	for _, p := range x.prefixes {
		if p.Contains(addr) {
			return p.exporter
		}
	}
	return nil
}

// ofNamesLocked returns the exporter of a certificate with such names, the
// first that is known.
func (x *exporters) ofNamesLocked(names []string) *exporter {
	if len(x.named) == 0 {
		return x.rememberLocked(names[0])
	}
	for _, n := range names {
		if e := x.certified[n]; e != nil {
			return e
		}
	}
	return nil
}

// rememberLocked returns an exporter that is not configured, or nil where
// there is no room for it.
func (x *exporters) rememberLocked(name string) *exporter {
	e := x.remembered[name]
	if e == nil && (len(x.remembered) < x.maxExporters || x.forgetLocked()) {
		e = &exporter{name: name, lines: &x.lines}
		x.remembered[name] = e
	}
	return e
}

// known reports whether a certificate with such names is of an exporter.
func (x *exporters) known(names []string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.ofNamesLocked(names) != nil
}

// identifying returns those of a certificate's names by which an exporter is
// known: where everyone may export, the first.
func (x *exporters) identifying(names []string) []string {
	if len(x.named) == 0 {
		return names[:min(1, len(names))]
	}
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return x.certified[n] == nil })
}

// forgetLocked makes room by forgetting an exporter without a session, any
// one: who floods the table with false addresses fills it with such.
func (x *exporters) forgetLocked() bool {
	for name, e := range x.remembered {
		if e.refs == 0 {
			x.others.add(&e.counters)
			delete(x.remembered, name)
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

// connect is acquire for a connection, within its limits.
func (x *exporters) connect(addr netip.Addr) *exporter {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.connectLocked(x.ofAddrLocked(addr))
}

// connectNames is connect for a connection known by a certificate.
func (x *exporters) connectNames(names []string) *exporter {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.connectLocked(x.ofNamesLocked(names))
}

func (x *exporters) connectLocked(e *exporter) *exporter {
	if x.holdLocked(e) == nil {
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
