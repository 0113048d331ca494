package collect

import (
	"errors"
	"fmt"
	"io"
	"net/netip"

	"tollbridge/ipfix"
)

// A Cause is why a Message is malformed (RFC 7011, Section 9.1).
type Cause uint8

const (
	CauseVersion   Cause = iota // its Version is not 10
	CauseLength                 // its Length is impossible, or not that of the datagram; in NetFlow 5, its count
	CauseSet                    // a Set's Length is
	CauseTemplate               // a Template Record or Options Template Record is
	CauseTruncated              // it was cut off: by MaxDatagram, or by the end of its connection
	causes
)

func (c Cause) String() string {
	switch c {
	case CauseVersion:
		return "version"
	case CauseLength:
		return "length"
	case CauseSet:
		return "set"
	case CauseTemplate:
		return "template"
	case CauseTruncated:
		return "truncated"
	}
	return fmt.Sprintf("Cause(%d)", uint8(c))
}

var errTruncated = errors.New("collect: datagram is longer than a Message may be")

// causeOf returns the cause that an error of ipfix.Validate or of stream.next
// stands for.
func causeOf(err error) Cause {
	var decode *ipfix.DecodeError
	switch {
	case errors.Is(err, errTruncated), errors.Is(err, io.ErrUnexpectedEOF):
		return CauseTruncated
	case errors.Is(err, ipfix.ErrVersion):
		return CauseVersion
	case errors.As(err, &decode) && decode.Offset < ipfix.HeaderLength:
		return CauseLength
	case errors.As(err, &decode) && decode.What == "Set Header":
		return CauseSet
	}
	return CauseTemplate
}

// malformed counts a Message that is discarded, and logs it now and then.
func (p *Process) malformed(e *exporter, remote netip.AddrPort, err error) {
	cause := causeOf(err)
	if messages, due := logDue(e.malformed[cause].Add(1)); due {
		p.cfg.Log.Warn("malformed message discarded", "exporter", e.name, "remote", remote,
			"cause", cause, "error", err, "messages", messages)
	}
}
