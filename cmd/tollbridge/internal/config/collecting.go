package config

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
)

// listeners returns how many addresses are listened on.
func (c *CollectingProcess) listeners() int {
	return len(c.UDPCollectors) + len(c.TCPCollectors) + len(c.TLSCollectors) + len(c.DTLSCollectors) + len(c.SCTPCollectors)
}

// check reports who could not send, or could who should not.
func (c *CollectingProcess) check(report func(key, format string, args ...any)) {
	plain := len(c.UDPCollectors)+len(c.TCPCollectors)+len(c.SCTPCollectors) > 0
	secure := len(c.TLSCollectors)+len(c.DTLSCollectors) > 0
	c.checkExporters(report, plain, secure)
	for _, l := range []struct {
		key     string
		addrs   []netip.AddrPort
		secure  bool
		missing string
	}{
		{"udpCollectors", c.UDPCollectors, false, "prefixes"},
		{"tcpCollectors", c.TCPCollectors, false, "prefixes"},
		{"sctpCollectors", c.SCTPCollectors, false, "prefixes"},
		{"tlsCollectors", c.TLSCollectors, true, "certificateNames"},
		{"dtlsCollectors", c.DTLSCollectors, true, "certificateNames"},
	} {
		for i, a := range l.addrs {
			key := fmt.Sprintf("collectingProcess.%s[%d]", l.key, i)
			switch {
			case c.known(l.secure):
			case len(c.Exporters) > 0:
				report(key, "nobody could send to it: no exporter has %s", l.missing)
			case !a.Addr().IsLoopback():
				report(key, "%s can be reached from other hosts, but collectingProcess.exporters names none that may send", a)
			}
		}
	}
	if secure || c.TLS != (TLS{}) {
		c.TLS.check(report, "collectingProcess.tls", secure, "tlsCollectors and dtlsCollectors need it", "exporters")
	}
}

// known reports whether an exporter can be told by its certificate, or by its
// address.
func (c *CollectingProcess) known(byCertificate bool) bool {
	for _, e := range c.Exporters {
		if byCertificate && len(e.CertificateNames) > 0 || !byCertificate && len(e.Prefixes) > 0 {
			return true
		}
	}
	return false
}

func (c *CollectingProcess) checkExporters(report func(key, format string, args ...any), plain, secure bool) {
	names, certificates := map[string]bool{}, map[string]string{}
	owner := map[netip.Prefix]string{}
	for i, e := range c.Exporters {
		key := fmt.Sprintf("collectingProcess.exporters[%d]", i)
		if e.Name == "" {
			report(key+".name", "is missing: the books name an exporter by it")
		}
		if names[e.Name] {
			report(key+".name", "%q is another exporter's name", e.Name)
		}
		names[e.Name] = true
		switch {
		case len(e.Prefixes) == 0 && len(e.CertificateNames) == 0:
			report(key+".prefixes", "is missing, and so is certificateNames: an exporter is known by the addresses that it sends from or by its certificate")
		case len(e.Prefixes) == 0 && !secure:
			report(key+".certificateNames", "is of no use without tlsCollectors and dtlsCollectors: give it prefixes, or listen for TLS or DTLS")
		case len(e.CertificateNames) == 0 && !plain:
			report(key+".prefixes", "is of no use without udpCollectors, tcpCollectors and sctpCollectors: give it certificateNames, or listen for one of these")
		}
		for j, p := range e.Prefixes {
			if o, taken := owner[p.Prefix]; taken {
				report(fmt.Sprintf("%s.prefixes[%d]", key, j), "%s belongs to exporter %q", p, o)
			}
			owner[p.Prefix] = e.Name
		}
		for j, n := range e.CertificateNames {
			key := fmt.Sprintf("%s.certificateNames[%d]", key, j)
			name := strings.ToLower(strings.TrimSuffix(n, "."))
			if o, taken := certificates[name]; taken {
				report(key, "%s belongs to exporter %q", n, o)
			}
			if name == "" || strings.ContainsAny(name, " /") {
				report(key, "%q is not a name of a certificate: write a DNS name such as edge-1.isp.example", n)
			}
			certificates[name] = e.Name
		}
	}
}

// check reports what of the files at key is missing or can't be used. Where
// they are needed, reason says why; others are whom we are to know, and who are
// to know us.
func (t *TLS) check(report func(key, format string, args ...any), key string, needed bool, reason, others string) {
	complete := true
	for _, f := range []struct{ key, file, what string }{
		{"certificate", t.Certificate, "what " + others + " know us by"},
		{"key", t.Key, "the certificate's private key"},
		{"ca", t.CA, "who may vouch for " + others},
	} {
		switch file, err := os.Open(f.file); {
		case f.file == "":
			why := "the other keys of tls are given"
			if needed {
				why = reason
			}
			report(key+"."+f.key, "is missing: name the PEM file of %s, as %s", f.what, why)
			complete = false
		case err != nil:
			report(key+"."+f.key, "can't be read: %v", err)
			complete = false
		default:
			file.Close()
		}
	}
	if !complete {
		return
	}
	if _, _, err := t.Load(); err != nil {
		blame := "certificate"
		if strings.Contains(err.Error(), t.CA) {
			blame = "ca"
		}
		report(key+"."+blame, "can't be used: %v", err)
	}
}
