package peer

import "tollbridge/dict/avp"

// A phase is the state of the peer state machine (RFC 6733, Section 5.6) of a
// node that both connects and accepts, as far as the two transport connections
// of a pair of nodes can get into each other's way: I is the one that we
// initiate, R the one that the peer does.
//
// There is no Wait-Conn-Ack/Elect: where the peer's CER is there before our
// transport is, ours is given up, which is the table's I-Rcv-Conn-Nack. So a
// peer is never kept waiting for a transport that it may not even let through.
// Closing is what follows for a connection alone, and is Conn's.
type phase uint8

const (
	closed      phase = iota
	waitConnAck       // Wait-Conn-Ack: I is being made
	waitICEA          // Wait-I-CEA: our CER is sent
	waitReturns       // Wait-Returns: and the peer's CER is here, whose connection stays unless ours is answered
	rOpen             // R-Open
	iOpen             // I-Open
)

// A happening is an event of the state machine.
type happening uint8

const (
	iStart      happening = iota // Start: a connection is wanted
	iRcvConnAck                  // the transport stands, over TLS after the handshake
	iRcvCEA                      // with DIAMETER_SUCCESS
	iEnded                       // I-Rcv-Conn-Nack, I-Peer-Disc, I-Rcv-Non-CEA, a CEA that refuses, or Timeout
	rConnCER                     // a CER on a connection of the peer's that is admitted
	rEnded                       // R-Peer-Disc, or Timeout of R
	ended                        // the open connection has
)

// An action is a set of what is to be done.
type action uint8

const (
	iSndConnReq action = 1 << iota
	iSndCER
	iDisc
	rSndCEA
	rDisc   // with ELECTION_LOST
	rReject // a connection stands already, or another CER waits
)

// next returns what follows when h happens, and whether it can. Our node wins
// an election, or does not.
func (p phase) next(h happening, wins bool) (to phase, do action, ok bool) {
	switch p {
	case closed:
		switch h {
		case iStart:
			return waitConnAck, iSndConnReq, true
		case rConnCER:
			return rOpen, rSndCEA, true
		}
	case waitConnAck:
		switch h {
		case iRcvConnAck:
			return waitICEA, iSndCER, true
		case iEnded:
			return closed, 0, true
		case rConnCER:
			return rOpen, iDisc | rSndCEA, true
		}
	case waitICEA:
		switch h {
		case iRcvCEA:
			return iOpen, 0, true
		case iEnded:
			return closed, 0, true
		case rConnCER:
			if wins { // Elect, Win-Election
				return rOpen, iDisc | rSndCEA, true
			}
			return waitReturns, 0, true
		}
	case waitReturns:
		switch h {
		case iRcvCEA:
			return iOpen, rDisc, true
		case iEnded:
			return rOpen, rSndCEA, true
		case rEnded:
			return waitICEA, 0, true
		case rConnCER:
			return p, rReject, true
		}
	case rOpen, iOpen:
		switch h {
		case rConnCER:
			return p, rReject, true
		case ended:
			return closed, 0, true
		}
	}
	return p, 0, false
}

// wins reports whether the node of a DiameterIdentity wins the election
// against another: its name succeeds the other's, whatever the case of ASCII
// letters (Section 5.6.4). The winner keeps what the other has initiated.
func wins(local, remote string) bool { return avp.FoldIdentity(local) > avp.FoldIdentity(remote) }
