package peer

import (
	"errors"
	"fmt"

	"tollbridge/dict/avp"
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
	text := fmt.Sprintf("peer: capabilities refused: Result-Code %d", e.Code)
	if why := refusals[e.Code]; why != "" {
		text += " " + why
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

// refusals say what the codes of a CEA come to (RFC 6733, Section 5.3).
var refusals = map[uint32]string{
	avp.ResultUnknownPeer:         "DIAMETER_UNKNOWN_PEER (who is asked does not know the Origin-Host of who asks: configure it there)",
	avp.ResultNoCommonApplication: "DIAMETER_NO_COMMON_APPLICATION (the nodes share no application: accounting is 3, coupled NASREQ 1)",
	avp.ResultNoCommonSecurity:    "DIAMETER_NO_COMMON_SECURITY (one side wants TLS, the other does not)",
	avp.ResultUnsupportedVersion:  "DIAMETER_UNSUPPORTED_VERSION",
	avp.ResultElectionLost:        "ELECTION_LOST (the nodes have connected to one another at once; the other connection stays)",
	avp.ResultMissingAVP:          "DIAMETER_MISSING_AVP",
	avp.ResultInvalidAVPValue:     "DIAMETER_INVALID_AVP_VALUE",
	avp.ResultAVPUnsupported:      "DIAMETER_AVP_UNSUPPORTED",
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
