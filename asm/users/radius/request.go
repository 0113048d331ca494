package radius

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2869"
)

// A Cause says why a packet was discarded.
type Cause uint8

const (
	CauseLength               Cause = iota // its Length field is not its own, or an attribute's is not
	CauseCode                              // neither Accounting-Request nor Status-Server
	CauseAuthenticator                     // its Request Authenticator is not made with the client's secret
	CauseMessageAuthenticator              // nor its Message-Authenticator, or it must have one
	CauseAttribute                         // an attribute that is needed is missing or makes no sense
)

func (c Cause) String() string {
	switch c {
	case CauseLength:
		return "length"
	case CauseCode:
		return "code"
	case CauseAuthenticator:
		return "authenticator"
	case CauseMessageAuthenticator:
		return "message authenticator"
	case CauseAttribute:
		return "attribute"
	}
	return fmt.Sprintf("Cause(%d)", uint8(c))
}

// A PacketError says why a packet is discarded, as RFC 2866, Section 4.1, and
// RFC 2865, Section 3, want it: silently to whoever sent it.
type PacketError struct {
	Cause Cause
	Err   error
}

func (e *PacketError) Error() string { return fmt.Sprintf("radius: %v: %v", e.Cause, e.Err) }

// Unwrap returns what is wrong.
func (e *PacketError) Unwrap() error { return e.Err }

func malformed(c Cause, format string, args ...any) error {
	return &PacketError{c, fmt.Errorf(format, args...)}
}

// headerLength is that of a packet's code, identifier, length and
// authenticator.
const headerLength = 20

var errSecret = errors.New("does not fit the client's secret")

// parseRequest checks a datagram of a client and reads it. Octets beyond the
// packet's length are padding (RFC 2865, Section 3). Errors are a *PacketError.
func parseRequest(datagram []byte, c *Client) (*radius.Packet, error) {
	if len(datagram) < headerLength {
		return nil, malformed(CauseLength, "%d octets are no packet", len(datagram))
	}
	length := int(binary.BigEndian.Uint16(datagram[2:]))
	if length < headerLength || length > min(len(datagram), radius.MaxPacketLength) {
		return nil, malformed(CauseLength, "Length is %d in a datagram of %d octets", length, len(datagram))
	}
	b := datagram[:length]
	p, err := radius.Parse(b, c.Secret)
	if err != nil {
		return nil, malformed(CauseLength, "%w", err)
	}
	required := c.RequireMessageAuthenticator
	switch p.Code {
	case radius.CodeAccountingRequest:
		if !hmac.Equal(b[4:headerLength], requestAuthenticator(b, c.Secret)) {
			return nil, malformed(CauseAuthenticator, "Request Authenticator %w", errSecret)
		}
	case radius.CodeStatusServer:
		required = true // RFC 5997, Section 3
	default:
		return nil, malformed(CauseCode, "%v is for another port or the other end", p.Code)
	}
	return p, checkMessageAuthenticator(b, p.Code, c.Secret, required)
}

// requestAuthenticator returns that of an Accounting-Request, Disconnect-Request
// or CoA-Request (RFC 2866, Section 3; RFC 5176, Section 2.3).
func requestAuthenticator(b, secret []byte) []byte {
	var zero [headerLength - 4]byte
	h := md5.New()
	h.Write(b[:4])
	h.Write(zero[:])
	h.Write(b[headerLength:])
	h.Write(secret)
	return h.Sum(nil)
}

// checkMessageAuthenticator checks the Message-Authenticator of a packet whose
// attributes have been parsed.
func checkMessageAuthenticator(b []byte, code radius.Code, secret []byte, required bool) error {
	at, err := findMessageAuthenticator(b)
	switch {
	case err != nil:
		return err
	case at < 0 && required:
		return malformed(CauseMessageAuthenticator, "Message-Authenticator is missing and required")
	case at < 0:
		return nil
	}
	if !hmac.Equal(b[at:at+md5.Size], messageAuthenticator(b, at, code, secret)) {
		return malformed(CauseMessageAuthenticator, "Message-Authenticator %w", errSecret)
	}
	return nil
}

// findMessageAuthenticator returns where a packet has the value of its
// Message-Authenticator, -1 where it has none.
func findMessageAuthenticator(b []byte) (int, error) {
	found := -1
	for at := headerLength; at < len(b); at += int(b[at+1]) {
		if radius.Type(b[at]) != rfc2869.MessageAuthenticator_Type {
			continue
		}
		if found >= 0 || b[at+1] != 2+md5.Size {
			return 0, malformed(CauseMessageAuthenticator, "Message-Authenticator comes twice or has not 16 octets")
		}
		found = at + 2
	}
	return found, nil
}

// messageAuthenticator returns what a packet's Message-Authenticator, whose
// value is at b[at:], must be: the HMAC-MD5 of the packet with zeros in its
// place (RFC 2869, Section 5.14) and, where the authenticator is itself made
// from the whole packet, zeros in that place (RFC 5176, Section 3.3).
func messageAuthenticator(b []byte, at int, code radius.Code, secret []byte) []byte {
	c := append([]byte(nil), b...)
	clear(c[at : at+md5.Size])
	switch code {
	case radius.CodeAccountingRequest, radius.CodeDisconnectRequest, radius.CodeCoARequest:
		clear(c[4:headerLength])
	}
	h := hmac.New(md5.New, secret)
	h.Write(c)
	return h.Sum(nil)
}

// response returns the Accounting-Response to a request (RFC 2866, Section
// 4.2): every Proxy-State in its order, and a Message-Authenticator where the
// client shows that it knows of it.
func response(request *radius.Packet, c *Client) ([]byte, error) {
	r := request.Response(radius.CodeAccountingResponse)
	_, signed := request.Lookup(rfc2869.MessageAuthenticator_Type)
	if signed || c.RequireMessageAuthenticator {
		r.Add(rfc2869.MessageAuthenticator_Type, make(radius.Attribute, md5.Size))
	}
	for _, a := range request.Attributes {
		if a.Type == rfc2865.ProxyState_Type {
			r.Add(a.Type, a.Attribute)
		}
	}
	if signed || c.RequireMessageAuthenticator {
		b, err := r.MarshalBinary() // still with the request's authenticator
		if err != nil {
			return nil, fmt.Errorf("radius: encode response: %w", err)
		}
		copy(r.Attributes[0].Attribute, messageAuthenticator(b, headerLength+2, r.Code, c.Secret))
	}
	b, err := r.Encode()
	if err != nil {
		return nil, fmt.Errorf("radius: encode response: %w", err)
	}
	return b, nil
}
