// Package avp reads and writes the Diameter wire format: the message header
// (RFC 6733, Section 3) and AVPs (Section 4).
//
// It knows lengths, flags, padding and data formats, and the numbers that
// Tollbridge uses; it holds no dictionary and no state, so all of it may be
// used by many goroutines at once. What it reads stays in place, and neither
// reading nor writing into a large enough buffer allocates:
//
//	b = avp.AppendHeader(b[:0], avp.Header{Flags: avp.FlagRequest, Command: avp.CommandDeviceWatchdog})
//	b = avp.AppendString(b, avp.OriginHost, 0, avp.FlagMandatory, host)
//	b = avp.AppendString(b, avp.OriginRealm, 0, avp.FlagMandatory, realm)
//	avp.SetLength(b)
package avp

import "encoding/binary"

// Version is the version of Diameter in a message header.
const Version = 1

// HeaderLen is the length of a message header in octets.
const HeaderLen = 20

// MaxLength is the largest length that a message or an AVP can state: both
// fields have three octets.
const MaxLength = 1<<24 - 1

// Command flags (RFC 6733, Section 3).
const (
	FlagRequest       = 0x80 // R: a request; clear in an answer
	FlagProxiable     = 0x40 // P: may be proxied, relayed or redirected
	FlagError         = 0x20 // E: an answer with a protocol error, which need not follow the command's ABNF
	FlagRetransmitted = 0x10 // T: a request sent again after a link failover
)

// A Header is a Diameter message header (RFC 6733, Section 3).
type Header struct {
	Length      uint32 // of the whole message, octets; always a multiple of 4
	Flags       uint8
	Command     uint32 // 24 bits
	Application uint32
	HopByHop    uint32 // matches request and answer on one connection
	EndToEnd    uint32 // with Origin-Host finds duplicates
}

// ParseHeader reads the header at the front of b, which may hold less than the
// whole message; a reader learns from it how much to read. It refuses a version
// other than 1, a Message Length below 20 or not a multiple of 4, and fewer
// than 20 octets. Reserved flags are ignored, as Section 3 asks.
// Errors are of type *DecodeError; with ErrVersion the rest of the header has been read.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, &DecodeError{0, "Diameter Header", ErrTruncated}
	}
	h := Header{
		Length:      uint24(b[1:]),
		Flags:       b[4],
		Command:     uint24(b[5:]),
		Application: binary.BigEndian.Uint32(b[8:]),
		HopByHop:    binary.BigEndian.Uint32(b[12:]),
		EndToEnd:    binary.BigEndian.Uint32(b[16:]),
	}
	switch {
	case b[0] != Version:
		return h, &DecodeError{0, "Version", ErrVersion}
	case h.Length < HeaderLen || h.Length%4 != 0:
		return h, &DecodeError{1, "Message Length", ErrLength}
	}
	return h, nil
}

// AppendHeader appends the octets of h. Where the length is not known yet,
// leave it zero and call SetLength when the message is complete.
func AppendHeader(b []byte, h Header) []byte {
	return append(b,
		Version, byte(h.Length>>16), byte(h.Length>>8), byte(h.Length),
		h.Flags, byte(h.Command>>16), byte(h.Command>>8), byte(h.Command),
		byte(h.Application>>24), byte(h.Application>>16), byte(h.Application>>8), byte(h.Application),
		byte(h.HopByHop>>24), byte(h.HopByHop>>16), byte(h.HopByHop>>8), byte(h.HopByHop),
		byte(h.EndToEnd>>24), byte(h.EndToEnd>>16), byte(h.EndToEnd>>8), byte(h.EndToEnd))
}

// SetLength writes len(message) into the header of message, which begins with
// a header and ends with its last AVP. A message longer than MaxLength panics.
func SetLength(message []byte) { putLength(message[1:4], len(message)) }

// SetFlags replaces the command flags in the header of message.
func SetFlags(message []byte, flags uint8) { message[4] = flags }

// SetHopByHop replaces the Hop-by-Hop Identifier in the header of message.
func SetHopByHop(message []byte, id uint32) { binary.BigEndian.PutUint32(message[12:16], id) }

// SetEndToEnd replaces the End-to-End Identifier in the header of message.
func SetEndToEnd(message []byte, id uint32) { binary.BigEndian.PutUint32(message[16:20], id) }

// ParseMessage reads the header of a whole message and returns it with the
// AVPs behind it. The Message Length must be len(b). Of the AVPs nothing has
// been checked: Scan does that.
func ParseMessage(b []byte) (h Header, avps []byte, err error) {
	h, err = ParseHeader(b)
	if err != nil {
		return h, nil, err
	}
	if int(h.Length) != len(b) {
		return h, nil, &DecodeError{1, "Message Length", ErrLength}
	}
	return h, b[HeaderLen:], nil
}

func uint24(b []byte) uint32 {
	_ = b[2]
	return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])
}

func putLength(b []byte, n int) {
	checkLength(n)
	_ = b[2]
	b[0], b[1], b[2] = byte(n>>16), byte(n>>8), byte(n)
}
