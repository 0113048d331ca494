package meter

import (
	"encoding/binary"
	"math"
)

// maxTime bounds times, in Unix nanoseconds, so that a timeout added to one can
// not overflow.
const maxTime = math.MaxInt64 / 2

// A key is what packets of one flow have in common (RFC 7011, Section 2: the
// Flow Key), as octets in network byte order: both addresses, 16 octets each, of
// which IPv4 uses the first four; both ports, or zero where there are none;
// ICMP type and code in place of ports; protocol, DSCP, IP version, and the
// interface it was observed on.
type key [44]byte

// Offsets in a key.
const (
	keySource      = 0
	keyDestination = 16
	keyPorts       = 32
	keyICMP        = 34 // ICMP has no ports: type and code lie where the destination port would
	keyProtocol    = 36
	keyDSCP        = 37
	keyVersion     = 38
	keyInterface   = 40
)

func (k *key) protocol(p byte)       { k[keyProtocol] = p }
func (k *key) dscp(d byte)           { k[keyDSCP] = d }
func (k *key) version(v byte)        { k[keyVersion] = v }
func (k *key) setInterface(i uint32) { binary.BigEndian.PutUint32(k[keyInterface:], i) }

// isICMP reports whether the key has ICMP type and code in place of ports.
func (k *key) isICMP() bool {
	if k[keyVersion] == 4 {
		return k[keyProtocol] == protoICMP
	}
	return k[keyProtocol] == protoICMPv6
}

// A flow is an entry of the flow cache. One without packets is free.
type flow struct {
	key     key
	flags   uint16 // tcpControlBits of all packets together
	hash    uint32
	start   int64 // first packet, Unix nanoseconds
	end     int64 // latest packet
	octets  uint64
	packets uint64
}

func (f *flow) reset(o *observation) {
	*f = flow{key: o.key, hash: o.hash, start: o.at, end: o.at}
}

func (f *flow) add(o *observation) {
	// Packets may come out of order, from several queues of one interface.
	f.start = min(f.start, o.at)
	f.end = max(f.end, o.at)
	f.octets += o.octets
	f.packets++
	f.flags |= o.flags
}

// finished reports whether a TCP segment has ended the flow.
func (f *flow) finished() bool { return f.flags&(tcpFIN|tcpRST) != 0 }

// An EndReason says why a flow was exported (flowEndReason, Information
// Element 136, RFC 5102, Section 5.11.3).
type EndReason uint8

const (
	IdleTimeout     EndReason = 1 // no packet for the idle timeout
	ActiveTimeout   EndReason = 2 // still active, reported after the active timeout
	EndOfFlow       EndReason = 3 // TCP FIN or RST
	ForcedEnd       EndReason = 4 // the Metering Process was shut down or flushed
	LackOfResources EndReason = 5 // the flow cache was full
)
