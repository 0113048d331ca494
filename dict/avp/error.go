package avp

import (
	"errors"
	"fmt"
)

// What can be wrong with a message or an AVP.
var (
	ErrTruncated = errors.New("truncated")
	ErrVersion   = errors.New("unsupported version")
	ErrLength    = errors.New("invalid length")
	ErrValue     = errors.New("invalid value")
)

// A DecodeError says where decoding stopped and why. Err is one of the
// package's sentinels.
type DecodeError struct {
	Offset int    // octets from the start of what was decoded
	What   string // the RFC 6733 name of the thing: "AVP Length"
	Err    error
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("avp: %s at octet %d: %v", e.What, e.Offset, e.Err)
}

func (e *DecodeError) Unwrap() error { return e.Err }

// ResultCode returns the Result-Code with which a server answers a request
// that gave err (RFC 6733, Section 7.1.5): ResultUnsupportedVersion for
// ErrVersion, ResultInvalidMessageLength for a wrong or cut header,
// ResultInvalidAVPValue for ErrValue, and ResultInvalidAVPLength otherwise.
func ResultCode(err error) uint32 {
	var d *DecodeError
	switch {
	case errors.Is(err, ErrVersion):
		return ResultUnsupportedVersion
	case errors.Is(err, ErrValue):
		return ResultInvalidAVPValue
	case errors.As(err, &d) && (d.What == "Message Length" || d.What == "Diameter Header"):
		return ResultInvalidMessageLength
	}
	return ResultInvalidAVPLength
}
