package dhcp

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"tollbridge/asm/users"
)

// A Lease is what a DHCP server says of an address or prefix at one moment.
// Identities that it does not tell are empty.
type Lease struct {
	Prefix netip.Prefix

	HWAddress string // such as 02:00:00:00:00:01
	ClientID  string // octets
	DUID      string // octets
	IAID      uint32
	Hostname  string
	CircuitID string // octets of option 82, sub-option 1, or option 18 of a DHCPv6 relay
	RemoteID  string // octets of option 82, sub-option 2, or option 37 of a DHCPv6 relay

	Active bool
	Start  time.Time // the client's latest transaction
	End    time.Time // when it expires, or when it ended; zero for never and for not known
}

// An Identity is what of a lease may be the user.
type Identity string

// The identities that there are.
const (
	HWAddress Identity = "hwAddress"
	ClientID  Identity = "clientId"
	DUID      Identity = "duid"
	Hostname  Identity = "hostname"
	CircuitID Identity = "circuitId"
	RemoteID  Identity = "remoteId"
)

// ParseIdentity reads the name of one.
func ParseIdentity(s string) (Identity, error) {
	switch i := Identity(s); i {
	case HWAddress, ClientID, DUID, Hostname, CircuitID, RemoteID:
		return i, nil
	}
	return "", fmt.Errorf("%q is nothing that a lease has: write one of hwAddress, clientId, duid, hostname, circuitId, remoteId", s)
}

// identity returns what l has of one as text: octets that are no text in
// hexadecimal.
func (l *Lease) identity(i Identity) string {
	switch i {
	case HWAddress:
		return l.HWAddress
	case ClientID:
		return colons(l.ClientID)
	case DUID:
		return colons(l.DUID)
	case Hostname:
		if users.CheckName(l.Hostname) != nil {
			return l.Hostname // ToLower would make another of it
		}
		return strings.ToLower(strings.TrimSuffix(l.Hostname, "."))
	case CircuitID:
		return text(l.CircuitID)
	case RemoteID:
		return text(l.RemoteID)
	}
	return ""
}

// user returns the first of the identities that l has and that may name a user,
// "" if it has none.
func (l *Lease) user(order []Identity) string {
	for _, i := range order {
		if s := l.identity(i); s != "" && users.CheckName(s) == nil {
			return s
		}
	}
	return ""
}

// id returns the key of the lease: the prefix and its client.
func (l *Lease) id() string {
	client := l.HWAddress
	switch {
	case l.DUID != "":
		client = fmt.Sprintf("%s/%d", colons(l.DUID), l.IAID)
	case l.ClientID != "":
		client = colons(l.ClientID)
	}
	id := l.Prefix.String() + " " + client
	if len(id) > users.MaxName {
		return fmt.Sprintf("%s %x", l.Prefix, sha256.Sum256([]byte(client)))
	}
	return id
}

// enterprise of ADSL-Agent-Circuit-Id (1) and ADSL-Agent-Remote-Id (2), RFC
// 4679, Sections 3.3.1 and 3.3.2.
const enterprise = 3561

// callingStationID is RFC 2865, Section 5.31.
const callingStationID = 31

// attributes returns what goes into the accounting records of the user.
func (l *Lease) attributes() users.Attributes {
	var list []users.Attribute
	for _, a := range []users.Attribute{
		{Code: callingStationID, Data: l.HWAddress},
		{Code: 1, Vendor: enterprise, Data: l.CircuitID},
		{Code: 2, Vendor: enterprise, Data: l.RemoteID},
	} {
		if a.Data != "" {
			list = append(list, a)
		}
	}
	return users.NewAttributes(list...)
}

// colons writes octets like 01:ab:00.
func colons(octets string) string {
	var b strings.Builder
	for i := range len(octets) {
		if i > 0 {
			b.WriteByte(':')
		}
		fmt.Fprintf(&b, "%02x", octets[i])
	}
	return b.String()
}

// octets reads what colons writes, and also 1:ab:0 and 01ab00.
func octets(s string) (string, error) {
	if !strings.Contains(s, ":") {
		b, err := hex.DecodeString(s)
		return string(b), err
	}
	var b []byte
	for part := range strings.SplitSeq(s, ":") {
		if len(part) == 1 {
			part = "0" + part
		}
		o, err := hex.DecodeString(part)
		if err != nil || len(o) != 1 {
			return "", fmt.Errorf("%q is no octet", part)
		}
		b = append(b, o[0])
	}
	return string(b), nil
}

func text(octets string) string {
	if users.CheckName(octets) == nil {
		return octets
	}
	return colons(octets)
}
