package peer

import (
	"errors"
	"fmt"
)

var (
	// ErrIdentity says that a peer is not the one it should be.
	ErrIdentity = errors.New("unexpected Origin-Host")
	// ErrSilent says that the watchdog gave a connection up.
	ErrSilent = errors.New("no answer to the watchdog")
	// ErrProtocol says that what came is not what the protocol has there.
	ErrProtocol = errors.New("protocol violation")
	// ErrClosed says that the connection was closed by this side.
	ErrClosed = errors.New("connection closed")
)

// A Refusal is a capabilities exchange that failed: the Result-Code that the
// peer gave or was given.
type Refusal struct {
	Code    uint32
	Message string // Error-Message; "" for none
	Failed  []byte // the AVPs in Failed-AVP; nil for none
}

func (e *Refusal) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("peer: capabilities refused: Result-Code %d", e.Code)
	}
	return fmt.Sprintf("peer: capabilities refused: Result-Code %d: %s", e.Code, e.Message)
}

// A DisconnectError says that the peer sent a Disconnect-Peer-Request (RFC
// 6733, Section 5.4).
type DisconnectError struct {
	Cause uint32 // Disconnect-Cause
}

func (e *DisconnectError) Error() string {
	return "peer: disconnected by the peer: " + CauseString(e.Cause)
}

// CauseString returns the name of a Disconnect-Cause (RFC 6733, Section 5.4.3).
func CauseString(cause uint32) string {
	switch cause {
	case 0:
		return "REBOOTING"
	case 1:
		return "BUSY"
	case 2:
		return "DO_NOT_WANT_TO_TALK_TO_YOU"
	}
	return fmt.Sprintf("Disconnect-Cause %d", cause)
}
