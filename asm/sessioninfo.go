package asm

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"tollbridge/internal/octets"
	"tollbridge/ipfix"
)

// SessionInfo is the data of an acct.EntryOpen: a Transport Session that
// began.
type SessionInfo struct {
	Transport     ipfix.Transport
	Exporter      string // configured or certificate identity
	Remote, Local netip.AddrPort
}

// sessionInfoVersion is the first octet of an encoded SessionInfo.
const sessionInfoVersion = 1

// AppendBinary appends what ParseSessionInfo reads. It returns no error.
func (i SessionInfo) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, sessionInfoVersion, byte(i.Transport))
	b = octets.AppendString(b, i.Exporter)
	for _, a := range []netip.AddrPort{i.Remote, i.Local} {
		b = octets.AppendAddr(b, a.Addr())
		b = binary.AppendUvarint(b, uint64(a.Port()))
	}
	return b, nil
}

// ParseSessionInfo reads what AppendBinary wrote. Errors match ErrCorrupt.
func ParseSessionInfo(data []byte) (SessionInfo, error) {
	r := octets.NewReader(data)
	i := readSessionInfo(&r)
	if err := r.Close(); err != nil {
		return SessionInfo{}, fmt.Errorf("asm: decode session info: %w", err)
	}
	return i, nil
}

func readSessionInfo(r *octets.Reader) (i SessionInfo) {
	if r.Octet() != sessionInfoVersion {
		r.Fail()
	}
	i.Transport = ipfix.Transport(r.Octet())
	i.Exporter = r.Text()
	for _, a := range []*netip.AddrPort{&i.Remote, &i.Local} {
		*a = netip.AddrPortFrom(r.Addr(), uint16(r.Uvarint()))
	}
	return i
}
