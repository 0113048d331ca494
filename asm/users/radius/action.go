package radius

import (
	"context"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2869"
	"layeh.com/radius/rfc3576"

	"tollbridge/asm/users"
)

// A Controller asks a NAS to end or change sessions (RFC 5176): the Dynamic
// Authorization Client. Its methods may be called by any goroutines.
type Controller struct {
	Address string        // of the NAS, such as 192.0.2.1:3799
	Secret  []byte        // shared with it
	Timeout time.Duration // before the first repetition, doubled for each further one; 0 means 2s
	Tries   int           // 0 means 4
	Now     func() time.Time
}

// A RefusedError is the NAK of a NAS.
type RefusedError struct {
	Code  radius.Code // Disconnect-NAK or CoA-NAK
	Cause uint32      // Error-Cause (RFC 5176, Section 3.5), such as 503, Session Context Not Found; 0 for none
}

func (e *RefusedError) Error() string {
	if e.Cause == 0 {
		return fmt.Sprintf("radius: the NAS refused: %v", e.Code)
	}
	return fmt.Sprintf("radius: the NAS refused: %v, Error-Cause %d", e.Code, e.Cause)
}

// ErrUnanswered says that the NAS was silent: whether it has done what it was
// asked for is not known.
var ErrUnanswered = errors.New("radius: the NAS does not answer")

// Disconnect ends a session. Attributes tell which: those of the NAS and the
// session as accounting told of them, such as NAS-Identifier, Acct-Session-Id
// and User-Name (RFC 5176, Section 3). A refusal is a *RefusedError.
func (c *Controller) Disconnect(ctx context.Context, session ...users.Attribute) error {
	return c.request(ctx, radius.CodeDisconnectRequest, session)
}

// Change changes the authorization of a session: attributes tell which, and
// what is to hold from now on, such as a Filter-Id. A refusal is a
// *RefusedError.
func (c *Controller) Change(ctx context.Context, attributes ...users.Attribute) error {
	return c.request(ctx, radius.CodeCoARequest, attributes)
}

// request sends a request until it is answered. All sendings are one packet, so
// that the NAS knows a repetition (Section 2.3).
func (c *Controller) request(ctx context.Context, code radius.Code, attributes []users.Attribute) error {
	b, err := c.encode(code, attributes)
	if err != nil {
		return err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", c.Address)
	if err != nil {
		return fmt.Errorf("radius: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	timeout, tries := c.Timeout, c.Tries
	if timeout == 0 {
		timeout = 2 * time.Second
	}
	if tries == 0 {
		tries = 4
	}
	for range tries {
		// What can't be sent, and an ICMP message that nobody listens, may
		// be otherwise at the next try.
		conn.Write(b)                                 //nolint:errcheck // see above
		conn.SetReadDeadline(time.Now().Add(timeout)) //nolint:errcheck // a closed one fails to read
		answer, err := c.await(conn, b, time.Now().Add(timeout))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			return outcome(answer)
		}
		timeout *= 2
	}
	return fmt.Errorf("%w: %s, asked %d times", ErrUnanswered, c.Address, tries)
}

// encode returns a request with an Event-Timestamp, against replays (Section
// 6.3), and a Message-Authenticator, the first of all.
func (c *Controller) encode(code radius.Code, attributes []users.Attribute) ([]byte, error) {
	now := time.Now
	if c.Now != nil {
		now = c.Now
	}
	p := radius.New(code, c.Secret)
	p.Authenticator = [16]byte{} // it is made from the packet
	p.Add(rfc2869.MessageAuthenticator_Type, make(radius.Attribute, md5.Size))
	if err := rfc2869.EventTimestamp_Add(p, now()); err != nil {
		return nil, fmt.Errorf("radius: encode %v: %w", code, err)
	}
	for _, a := range attributes {
		value := radius.Attribute(a.Data)
		t := radius.Type(a.Code)
		if a.Vendor != 0 {
			if len(a.Data) > 253-6 || a.Code > 255 {
				return nil, fmt.Errorf("radius: encode %v: attribute %d of vendor %d does not fit", code, a.Code, a.Vendor)
			}
			t = rfc2865.VendorSpecific_Type
			value = binary.BigEndian.AppendUint32(nil, a.Vendor)
			value = append(value, byte(a.Code), byte(2+len(a.Data)))
			value = append(value, a.Data...)
		}
		if t < 1 || t > 255 {
			return nil, fmt.Errorf("radius: encode %v: %d is no attribute of RADIUS", code, a.Code)
		}
		p.Add(t, value)
	}
	b, err := p.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("radius: encode %v: %w", code, err)
	}
	copy(p.Attributes[0].Attribute, messageAuthenticator(b, headerLength+2, code, c.Secret))
	return p.Encode()
}

// await returns the NAS's answer. Packets that are none are passed over, as
// anybody can send them.
func (c *Controller) await(conn net.Conn, request []byte, until time.Time) (*radius.Packet, error) {
	var buffer [radius.MaxPacketLength]byte
	for {
		n, err := conn.Read(buffer[:])
		if err != nil {
			if time.Now().Before(until) && !errors.Is(err, net.ErrClosed) && !isTimeout(err) {
				continue // an ICMP message
			}
			return nil, err
		}
		if n < headerLength {
			continue
		}
		length := int(binary.BigEndian.Uint16(buffer[2:]))
		if length < headerLength || length > n || buffer[1] != request[1] {
			continue
		}
		b := buffer[:length]
		p, err := radius.Parse(b, c.Secret)
		if err != nil || !radius.IsAuthenticResponse(b, request, c.Secret) || !isAnswer(p.Code, radius.Code(request[0])) {
			continue
		}
		// Its Message-Authenticator is made with the request's authenticator.
		copy(b[4:headerLength], request[4:headerLength])
		if checkMessageAuthenticator(b, p.Code, c.Secret, false) == nil {
			return p, nil
		}
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// isAnswer reports whether a code answers another: the request's is followed
// by those of ACK and NAK.
func isAnswer(answer, request radius.Code) bool {
	return answer == request+1 || answer == request+2
}

// outcome returns nil for an ACK.
func outcome(p *radius.Packet) error {
	if p.Code == radius.CodeDisconnectACK || p.Code == radius.CodeCoAACK {
		return nil
	}
	cause, _, _ := integer(p.Attributes, rfc3576.ErrorCause_Type) // one that can't be read is none
	return &RefusedError{p.Code, cause}
}
