package radius

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2869"
	"layeh.com/radius/rfc3576"

	"tollbridge/asm/users"
)

// aSession is one as accounting told of it.
var aSession = []users.Attribute{{Code: 1, Data: "alice"}, {Code: 44, Data: "0001"}, {Code: 1, Vendor: 3561, Data: "line"}}

// actOn has a NAS that answers requests: with what answer returns for the nth,
// nil for silence.
func actOn(t *testing.T, answer func(n int, request *radius.Packet) []byte) *Controller {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		var first []byte
		for n := 0; ; n++ {
			b := make([]byte, radius.MaxPacketLength)
			length, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			b = b[:length]
			if n == 0 {
				first = b
			}
			p, err := radius.Parse(b, secret)
			switch {
			case err != nil || !radius.IsAuthenticRequest(b, secret):
				t.Errorf("%x is no request of ours (%v)", b, err)
				return
			case checkMessageAuthenticator(b, p.Code, secret, true) != nil:
				t.Errorf("%x has no right Message-Authenticator", b)
			case !bytes.Equal(b, first):
				t.Errorf("sending %d is\n%x, not as the first\n%x", n, b, first)
			}
			if a := answer(n, p); a != nil {
				conn.WriteTo(a, from) //nolint:errcheck // the other end may have gone
			}
		}
	}()
	return &Controller{Address: conn.LocalAddr().String(), Secret: secret, Timeout: 20 * time.Millisecond, Tries: 4, Now: func() time.Time { return arrival }}
}

func TestAction(t *testing.T) {
	reply := func(p *radius.Packet, code radius.Code, with ...func(*radius.Packet)) []byte {
		r := p.Response(code)
		for _, f := range with {
			f(r)
		}
		b, err := r.Encode()
		if err != nil {
			t.Error(err)
		}
		return b
	}
	t.Run("Disconnect-Request and ACK (5176, 2.1)", func(t *testing.T) {
		c := actOn(t, func(_ int, p *radius.Packet) []byte {
			if p.Code != radius.CodeDisconnectRequest || rfc2865.UserName_GetString(p) != "alice" || !rfc2869.EventTimestamp_Get(p).Equal(arrival) ||
				string(p.Get(rfc2865.VendorSpecific_Type)) != "\x00\x00\x0d\xe9\x01\x06line" {
				t.Errorf("request %v with %v", p.Code, p.Attributes)
			}
			return reply(p, radius.CodeDisconnectACK)
		})
		if err := c.Disconnect(t.Context(), aSession...); err != nil {
			t.Error(err)
		}
	})
	t.Run("CoA-NAK with Error-Cause (5176, 3.5)", func(t *testing.T) {
		c := actOn(t, func(_ int, p *radius.Packet) []byte {
			return reply(p, radius.CodeCoANAK, func(r *radius.Packet) { rfc3576.ErrorCause_Set(r, 503) })
		})
		var refused *RefusedError
		if err := c.Change(t.Context(), aSession...); !errors.As(err, &refused) || refused.Cause != 503 || refused.Code != radius.CodeCoANAK {
			t.Errorf("error %v, want a refusal for 503", err)
		}
	})
	t.Run("repeated until it is answered, forgeries passed over", func(t *testing.T) {
		c := actOn(t, func(n int, p *radius.Packet) []byte {
			switch n {
			case 0:
				p.Secret = []byte("another")
				return reply(p, radius.CodeDisconnectACK)
			case 1:
				return reply(p, radius.CodeCoAACK) // to something else
			case 2:
				return reply(p, radius.CodeDisconnectACK, raw(80, "00000000000000000000000000000000"))
			}
			return reply(p, radius.CodeDisconnectACK)
		})
		if err := c.Disconnect(t.Context(), aSession...); err != nil {
			t.Error(err)
		}
	})
	t.Run("silence", func(t *testing.T) {
		c := actOn(t, func(int, *radius.Packet) []byte { return nil })
		c.Timeout = time.Millisecond
		if err := c.Disconnect(t.Context(), aSession...); !errors.Is(err, ErrUnanswered) {
			t.Errorf("error %v", err)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if err := c.Disconnect(ctx, aSession...); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v after the end", err)
		}
	})
	t.Run("what is no attribute of RADIUS", func(t *testing.T) {
		c := &Controller{Address: "127.0.0.1:9", Secret: secret}
		for _, a := range []users.Attribute{{Code: 300, Data: "x"}, {Code: 0}, {Code: 1, Vendor: 1, Data: string(make([]byte, 250))}} {
			if err := c.Disconnect(t.Context(), a); err == nil {
				t.Errorf("%+v is sent", a)
			}
		}
	})
}
