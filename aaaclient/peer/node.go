package peer

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"tollbridge/dict/avp"
)

// A Node is what a Diameter node says of itself in a Capabilities-Exchange
// message (RFC 6733, Section 5.3).
type Node struct {
	OriginHost  string       // DiameterIdentity; required
	OriginRealm string       // required
	StateID     uint32       // Origin-State-Id; 0 is not sent
	Addresses   []netip.Addr // Host-IP-Address; none means the connection's own
	VendorID    uint32       // Vendor-Id of the product; 0 is the IETF's
	ProductName string       // "" means "Tollbridge"
	Firmware    uint32       // Firmware-Revision; 0 is not sent
	Vendors     []uint32     // Supported-Vendor-Id
	Accounting  []uint32     // Acct-Application-Id; none means base accounting
	Auth        []uint32     // Auth-Application-Id
}

// Check reports what is missing or malformed in a Node of our own.
func (n Node) Check() error {
	if !avp.ValidIdentity(n.OriginHost) {
		return fmt.Errorf("peer: Origin-Host %q is no DiameterIdentity (RFC 6733, Section 4.3.1)", n.OriginHost)
	}
	if !avp.ValidIdentity(n.OriginRealm) {
		return fmt.Errorf("peer: Origin-Realm %q is no DiameterIdentity (RFC 6733, Section 4.3.1)", n.OriginRealm)
	}
	return nil
}

// Serves reports whether accounting of application app may be sent to n: it
// has announced it, or it is a relay, which takes every application.
func (n Node) Serves(app uint32) bool {
	return slices.Contains(n.Accounting, app) ||
		slices.Contains(n.Accounting, avp.ApplicationRelay) || slices.Contains(n.Auth, avp.ApplicationRelay)
}

// common reports whether two nodes have an application in common (Section
// 5.3): the same one, or either relays.
func common(a, b Node) bool {
	if a.Serves(avp.ApplicationRelay) || b.Serves(avp.ApplicationRelay) {
		return true
	}
	return slices.ContainsFunc(a.Accounting, b.Serves) ||
		slices.ContainsFunc(a.Auth, func(app uint32) bool { return slices.Contains(b.Auth, app) })
}

// filled returns n with its defaults, on a connection with that local address.
func (n Node) filled(local net.Addr) Node {
	if n.ProductName == "" {
		n.ProductName = "Tollbridge"
	}
	if len(n.Accounting) == 0 && len(n.Auth) == 0 {
		n.Accounting = []uint32{avp.ApplicationAccounting}
	}
	if len(n.Addresses) == 0 {
		n.Addresses = []netip.Addr{hostAddress(local)}
	}
	return n
}

// hostAddress returns the address of a, or the unspecified address where the
// transport has none.
func hostAddress(a net.Addr) netip.Addr {
	if t, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		if ip := t.AddrPort().Addr().Unmap().WithZone(""); ip.IsValid() {
			return ip
		}
	}
	return netip.IPv4Unspecified()
}

// appendOrigin appends the two AVPs that every message carries.
func (n Node) appendOrigin(b []byte) []byte {
	b = avp.AppendString(b, avp.OriginHost, 0, avp.FlagMandatory, n.OriginHost)
	return avp.AppendString(b, avp.OriginRealm, 0, avp.FlagMandatory, n.OriginRealm)
}

func (n Node) appendStateID(b []byte) []byte {
	if n.StateID == 0 {
		return b
	}
	return avp.AppendUint32(b, avp.OriginStateID, 0, avp.FlagMandatory, n.StateID)
}

// appendCapabilities appends the AVPs of a CER, in the order of its ABNF. A CEA
// has its Result-Code before them.
func (n Node) appendCapabilities(b []byte) []byte {
	const m = avp.FlagMandatory
	b = n.appendOrigin(b)
	for _, a := range n.Addresses {
		b = avp.AppendAddress(b, avp.HostIPAddress, 0, m, a)
	}
	b = avp.AppendUint32(b, avp.VendorID, 0, m, n.VendorID)
	b = avp.AppendString(b, avp.ProductName, 0, 0, n.ProductName)
	b = n.appendStateID(b)
	for _, v := range n.Vendors {
		b = avp.AppendUint32(b, avp.SupportedVendorID, 0, m, v)
	}
	for _, app := range n.Auth {
		b = avp.AppendUint32(b, avp.AuthApplicationID, 0, m, app)
	}
	for _, app := range n.Accounting {
		b = avp.AppendUint32(b, avp.AcctApplicationID, 0, m, app)
	}
	if n.Firmware != 0 {
		b = avp.AppendUint32(b, avp.FirmwareRevision, 0, 0, n.Firmware)
	}
	return b
}

// parseNode reads the AVPs of a CER or CEA. Unknown AVPs are passed over. What
// is wrong comes as a *Refusal, as a CEA would state it, with what could be read.
func parseNode(avps []byte) (Node, error) {
	var n Node
	for a, err := range avp.Scan(avps) {
		if err == nil {
			err = n.set(a)
		}
		if err != nil {
			return n, &Refusal{Code: avp.ResultCode(err), Message: err.Error(), Failed: failed(a)}
		}
	}
	for _, id := range [...]struct {
		code  uint32
		value string
	}{{avp.OriginHost, n.OriginHost}, {avp.OriginRealm, n.OriginRealm}} {
		offending := failed(avp.AVP{Code: id.code, Flags: avp.FlagMandatory, Data: []byte(id.value)})
		switch {
		case id.value == "":
			return n, &Refusal{Code: avp.ResultMissingAVP, Message: "Origin-Host and Origin-Realm are required", Failed: offending}
		case !avp.ValidIdentity(id.value):
			return n, &Refusal{Code: avp.ResultInvalidAVPValue, Message: "not a DiameterIdentity", Failed: offending}
		}
	}
	return n, nil
}

// maxFailed bounds what of an offending AVP is sent back, in octets.
const maxFailed = 1024

// failed returns the octets of a for a Failed-AVP.
func failed(a avp.AVP) []byte {
	a.Data = a.Data[:min(len(a.Data), maxFailed)]
	return a.Append(nil)
}

func (n *Node) set(a avp.AVP) (err error) {
	if a.Vendor != 0 {
		return nil
	}
	list := func(to *[]uint32) {
		var v uint32
		if v, err = a.Uint32(); err == nil {
			*to = append(*to, v)
		}
	}
	switch a.Code {
	case avp.OriginHost:
		n.OriginHost = string(a.Data)
	case avp.OriginRealm:
		n.OriginRealm = string(a.Data)
	case avp.ProductName:
		n.ProductName = string(a.Data)
	case avp.OriginStateID:
		n.StateID, err = a.Uint32()
	case avp.VendorID:
		n.VendorID, err = a.Uint32()
	case avp.FirmwareRevision:
		n.Firmware, err = a.Uint32()
	case avp.SupportedVendorID:
		list(&n.Vendors)
	case avp.AcctApplicationID:
		list(&n.Accounting)
	case avp.AuthApplicationID:
		list(&n.Auth)
	case avp.VendorSpecificApplicationID:
		for inner, err := range avp.Scan(a.Data) {
			if err != nil {
				return err
			}
			if inner.Is(avp.AcctApplicationID, 0) || inner.Is(avp.AuthApplicationID, 0) {
				if err := n.set(inner); err != nil {
					return err
				}
			}
		}
	case avp.HostIPAddress:
		// An address of another family is no reason to refuse a peer.
		var addr netip.Addr
		if addr, err = a.Addr(); err == nil {
			n.Addresses = append(n.Addresses, addr)
		} else if errors.Is(err, avp.ErrValue) {
			err = nil
		}
	}
	return err
}
