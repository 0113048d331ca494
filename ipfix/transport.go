package ipfix

import "fmt"

// A Transport is what carries the Messages of a Transport Session; the rules
// for Templates depend on it. The numbers are stored.
type Transport uint8

const (
	UDP  Transport = 1
	TCP  Transport = 2
	SCTP Transport = 3
	TLS  Transport = 4 // over TCP
	DTLS Transport = 5 // over UDP
)

// Reliable reports whether Messages arrive whole, so that a Template Withdrawal
// counts and a Template can't change without one (RFC 7011, Sections 8.1
// and 8.4).
func (t Transport) Reliable() bool { return t == TCP || t == SCTP || t == TLS }

func (t Transport) String() string {
	switch t {
	case UDP:
		return "udp"
	case TCP:
		return "tcp"
	case SCTP:
		return "sctp"
	case TLS:
		return "tls"
	case DTLS:
		return "dtls"
	}
	return fmt.Sprintf("Transport(%d)", uint8(t))
}
