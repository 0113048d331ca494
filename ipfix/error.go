package ipfix

import (
	"errors"
	"fmt"
)

// Causes of a DecodeError. Callers count by them.
var (
	ErrVersion    = errors.New("version is none of 10, 9 and 5")
	ErrLength     = errors.New("length is impossible")
	ErrTemplateID = errors.New("template ID below 256")
	ErrScope      = errors.New("scope field count is zero or above the field count")
	ErrEmpty      = errors.New("template describes records of no octets")

	// ErrCount: the header of a NetFlow packet of version 5 counts more records
	// than are there. See Session.Salvage.
	ErrCount = errors.New("count is of more records than are there")

	// ErrConflict: a Template ID was defined anew, differently, without the
	// withdrawal that a reliable transport asks for (RFC 7011, Section 8.1).
	ErrConflict = errors.New("template ID is in use by a different template")

	// ErrLimit: the Message would take the Session beyond its Limits.
	ErrLimit = errors.New("limit of the session is reached")
)

// A DecodeError says where in a Message decoding stopped.
type DecodeError struct {
	Offset int    // octets from the start of the Message
	What   string // the RFC 7011 name of the thing: "Set Header"
	Err    error  // one of the causes above
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("ipfix: %s at octet %d: %v", e.What, e.Offset, e.Err)
}

func (e *DecodeError) Unwrap() error { return e.Err }
