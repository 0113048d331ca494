package dict

import (
	"crypto/sha256"
	"encoding/binary"

	"tollbridge/dict/avp"
)

// ContentDigest returns a digest of the AVPs that make up the content of an
// accounting request, so that copies of one record are equal however they
// came: SHA-256 over code, vendor and data of each AVP in order. Left out are
// flags and padding, and the AVPs that routing, relays and retries add or
// change: Destination-Host and -Realm, Route-Record, Proxy-Info,
// Origin-State-Id, Acct-Delay-Time, and those of DRMP, overload and load
// control (RFC 7944, RFC 7683, RFC 8583). AVPs behind a malformed one do not
// count.
func ContentDigest(avps []byte) (sum [32]byte) {
	h := sha256.New()
	var head [12]byte
	for a, err := range avp.Scan(avps) {
		if err != nil {
			break
		}
		if a.Vendor == 0 && onTheWay(a.Code) {
			continue
		}
		binary.BigEndian.PutUint32(head[0:], a.Code)
		binary.BigEndian.PutUint32(head[4:], a.Vendor)
		binary.BigEndian.PutUint32(head[8:], uint32(len(a.Data)))
		h.Write(head[:])
		h.Write(a.Data)
	}
	h.Sum(sum[:0])
	return sum
}

// onTheWay reports whether an AVP belongs to the way of a request, not to
// what it says.
func onTheWay(code uint32) bool {
	switch code {
	case avp.DestinationHost, avp.DestinationRealm, avp.RouteRecord, avp.ProxyInfo,
		avp.OriginStateID, avp.AcctDelayTime,
		301, // DRMP
		621, // OC-Supported-Features
		623, // OC-OLR
		650: // Load
		return true
	}
	return false
}
