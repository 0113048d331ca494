package file

import (
	"encoding/binary"
	"io"

	"tollbridge/ipfix"
)

// Layout of NetFlow packets (RFC 3954, Sections 5.1 and 5.2, for version 9).
const (
	netflow5Header  = 24
	netflow5Record  = 48
	netflow5Records = 1024 // more than any exporter puts in one packet, by far
	netflow9Header  = 20
	setHeader       = 4
	minTemplateID   = 256
)

// maxMessage is the longest payload there is, in octets.
const maxMessage = 65535

// frame returns the octets of the message at the start of b. If that is more
// than len(b), the message can't be told or goes on, and so many must be there
// before it is asked again; at the end of the stream it is then cut off. Errors
// match ipfix.ErrVersion and ipfix.ErrLength.
func frame(b []byte, end bool) (int, error) {
	if len(b) < 2 {
		return 2, nil
	}
	switch binary.BigEndian.Uint16(b) {
	case ipfix.Version:
		if len(b) < ipfix.HeaderLength {
			return ipfix.HeaderLength, nil
		}
		h, err := ipfix.ParseHeader(b)
		return int(h.Length), err
	case ipfix.NetFlow5:
		if len(b) < 4 {
			return 4, nil
		}
		records := int(binary.BigEndian.Uint16(b[2:]))
		n := netflow5Header + records*netflow5Record
		whole := len(b) > netflow5Header && (len(b)-netflow5Header)%netflow5Record == 0 && len(b) <= maxMessage
		impossible := records == 0 || records > netflow5Records
		switch {
		case end && whole && (impossible || n > len(b)):
			return len(b), nil // one packet, whose count is wrong
		case impossible:
			return 0, ipfix.ErrLength
		}
		return n, nil
	case ipfix.NetFlow9:
		return frame9(b, end), nil
	}
	return 0, ipfix.ErrVersion
}

// frame9 is frame for NetFlow version 9, whose header has no length: the
// packet ends where a FlowSet would have an ID that is the version of another
// packet, which is a reserved ID (RFC 3954, Section 5.2). What has no FlowSet's
// form is taken as part of the packet, for the decoder to refuse.
func frame9(b []byte, end bool) int {
	at := netflow9Header
	for at+setHeader <= len(b) {
		switch binary.BigEndian.Uint16(b[at:]) {
		case ipfix.Version, ipfix.NetFlow9, ipfix.NetFlow5:
			return at
		}
		length := int(binary.BigEndian.Uint16(b[at+2:]))
		if length < setHeader || at+length > maxMessage {
			at = maxMessage
			break
		}
		at += length
	}
	if end && len(b) >= netflow9Header {
		return min(len(b), maxMessage)
	}
	return min(at+setHeader, maxMessage)
}

// looksLikeMessage reports whether b can hardly be anything but the start of a
// message: one of IPFIX, or a whole NetFlow packet.
func looksLikeMessage(b []byte) bool {
	if len(b) < ipfix.HeaderLength+setHeader {
		return false
	}
	switch binary.BigEndian.Uint16(b) {
	case ipfix.Version:
		length := binary.BigEndian.Uint16(b[2:])
		return looksLikeSet(b[ipfix.HeaderLength:], int(length)-ipfix.HeaderLength, 2, 3)
	case ipfix.NetFlow5:
		n, err := frame(b, false)
		return err == nil && n == len(b)
	case ipfix.NetFlow9:
		return len(b) >= netflow9Header+setHeader && binary.BigEndian.Uint16(b[2:]) > 0 &&
			looksLikeSet(b[netflow9Header:], len(b)-netflow9Header, 0, 1)
	}
	return false
}

// looksLikeSet reports whether b begins with the header of a Set of at most
// room octets, for Templates by one of those IDs, or for data.
func looksLikeSet(b []byte, room int, template, options uint16) bool {
	id := binary.BigEndian.Uint16(b)
	length := int(binary.BigEndian.Uint16(b[2:]))
	return (id == template || id == options || id >= minTemplateID) && length > setHeader && length <= room
}

// IsMessages reports whether a file that begins with b holds Messages end to
// end: an IPFIX File or raw payloads.
func IsMessages(b []byte) bool {
	if len(b) < 2 {
		return false
	}
	switch binary.BigEndian.Uint16(b) {
	case ipfix.Version, ipfix.NetFlow5, ipfix.NetFlow9:
		return true
	}
	return false
}

// cut splits a datagram into its messages, of which there is one as a rule.
// What is left over at the end, or no message, is an error.
func cut(b []byte, visit func([]byte) error) error {
	for len(b) > 0 {
		n, err := frame(b, true)
		if err == nil && n > len(b) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		if err := visit(b[:n:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
