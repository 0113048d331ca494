package main

import (
	"net/netip"

	"tollbridge/asm"
	"tollbridge/asm/classes"
	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/ipfix/collect"
)

// exporters are those of the configuration as the Collecting Process has them.
func exporters(c config.Config) []collect.Exporter {
	var all []collect.Exporter
	for _, e := range c.CollectingProcess.Exporters {
		all = append(all, collect.Exporter{Name: e.Name, Prefixes: prefixes(e.Prefixes), CertificateNames: e.CertificateNames})
	}
	return all
}

func prefixes(list []config.Prefix) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range list {
		all = append(all, p.Prefix)
	}
	return all
}

// settings are what of the configuration can change an accounting record.
func settings(c config.Config) asm.Settings {
	a := c.Accounting
	s := asm.Settings{
		Mode:             asm.Mode(a.Mode),
		OriginHost:       c.Identity.OriginHost,
		DestinationRealm: c.Delivery.DestinationRealm,
		VendorID:         uint32(c.Delivery.VendorID),
		Interval:         a.InterimInterval,
		MinInterim:       a.MinInterim,
		MaxInterim:       a.MaxInterim,
		Linger:           a.Linger,
		MaxSessionAge:    a.MaxSessionAge,
		Wait:             c.Users.Wait,
		Fallback:         c.Users.Fallback,
		ClockTolerance:   a.ClockTolerance,
		DedupWindow:      a.DedupWindow,
		MaxIdentities:    a.MaxIdentities,
		CompareOctets:    int(compareOctets(c)),
		MaxRecord:        a.MaxRecord,
		MaxTotals:        a.MaxTotals,
		InBand:           c.Users.InBand,
		InBandIdle:       c.Users.InBandIdle,
		Networks:         prefixes(c.Users.Networks),
		Split:            asm.Split(c.Users.Split),
		UserTolerance:    c.Users.Tolerance,
		Correct:          c.Users.Correct,
		CorrectOctets:    int(c.Users.CorrectMemory),
		Layer:            a.Layer,
		TimeZone:         a.TimeZone,
		BillingDay:       a.BillingDay,
		TemplateLifetime: c.CollectingProcess.TemplateLifetime,
	}
	for _, e := range c.CollectingProcess.Exporters {
		x := asm.ExporterSettings{Name: e.Name, Sampling: uint32(e.Sampling), Account: asm.AccountPolicy(e.Account), VRF: vrf(e.VRF), Forwards: e.Forwards}
		if len(e.Aliases) > 0 {
			x.Identity = e.Aliases[0]
		}
		for _, n := range e.Interfaces {
			x.Interfaces = append(x.Interfaces, uint32(n))
		}
		if x.Sampling != 0 || x.Identity != "" || x.Account != "" || len(x.Interfaces) > 0 || e.VRF.Element != "" || e.Forwards {
			s.Exporters = append(s.Exporters, x)
		}
	}
	for _, r := range a.Realms {
		s.Realms = append(s.Realms, asm.RealmSettings(r))
	}
	for _, class := range a.Classes {
		out := classes.Rule{
			Name: class.Name, Prefixes: prefixes(class.Prefixes),
			Direction: class.Direction, Multicast: class.Multicast, Internal: class.Internal, ZeroRated: class.ZeroRated,
		}
		for _, n := range class.DSCP {
			out.DSCP = append(out.DSCP, uint8(n))
		}
		for _, n := range class.Protocols {
			out.Protocols = append(out.Protocols, uint8(n))
		}
		for _, p := range class.Ports {
			out.Ports = append(out.Ports, classes.PortRange(p))
		}
		s.Classes = append(s.Classes, out)
	}
	return s
}

// compareOctets is how much of the journal is kept to compare duplicates. It
// must not fill the journal to its high-water mark by itself.
func compareOctets(c config.Config) config.Octets {
	most := c.Accounting.CompareJournal
	if mark := c.Spool.MaxJournal; mark > 0 {
		most = min(most, mark/2)
	}
	return most
}

// vrf is how an exporter's records tell address spaces apart, nil for not.
func vrf(v config.VRF) *asm.VRFSettings {
	if v.Element == "" {
		return nil
	}
	s := &asm.VRFSettings{Element: v.Element, Names: make(map[string]string)}
	for _, n := range v.Names {
		s.Names[n.Value] = n.Name
	}
	return s
}
