package config

import (
	"fmt"
	"net"
)

// An Acknowledge says when a collector that passes on tells an exporter that a
// Message is durable.
type Acknowledge string

// UnmarshalText refuses what is none.
func (a *Acknowledge) UnmarshalText(b []byte) error {
	switch *a = Acknowledge(b); *a {
	case "owner", "here":
		return nil
	}
	return fmt.Errorf("%q is neither owner (once the collector that accounts has it too) nor here (once it is on this disk)", b)
}

// check reports what can't be forwarded to.
func (f *Forward) check(report func(key, format string, args ...any), secure TLS) {
	for i, a := range f.To {
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" {
			report(fmt.Sprintf("forward.to[%d]", i), "%q is no address: write host and port, such as owner.isp.example:4740", a)
		}
	}
	if len(f.To) > 0 && !f.Plaintext && secure == (TLS{}) {
		report("forward.to", "needs collectingProcess.tls: both ends show a certificate. On a network that is yours alone, plaintext: true does without")
	}
	if f.MaxSpool < 1<<20 {
		report("forward.maxSpool", "%d octets are too few: at least 1MiB", f.MaxSpool)
	}
}
