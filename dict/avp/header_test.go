package avp

import (
	"errors"
	"testing"

	"tollbridge/internal/wiretest"
)

func TestParseHeader(t *testing.T) {
	good := AppendHeader(nil, Header{
		Length: 20, Flags: FlagRequest | FlagProxiable, Command: CommandAccounting,
		Application: ApplicationAccounting, HopByHop: 0x01020304, EndToEnd: 0x05060708,
	})
	for _, row := range []struct {
		name   string
		change func(b []byte) []byte
		want   error
		result uint32
	}{
		{"a header alone is a message of 20 octets (3)", func(b []byte) []byte { return b }, nil, 0},
		{"the Version field MUST be set to 1 (3)", func(b []byte) []byte { b[0] = 2; return b }, ErrVersion, ResultUnsupportedVersion},
		{"the Message Length includes the header fields (3)", func(b []byte) []byte { b[3] = 16; return b }, ErrLength, ResultInvalidMessageLength},
		{"the Message Length is always a multiple of 4 (3)", func(b []byte) []byte { b[3] = 22; return b }, ErrLength, ResultInvalidMessageLength},
		{"reserved flags are ignored by the receiver (3)", func(b []byte) []byte { b[4] |= 0x0f; return b }, nil, 0},
		{"a header has 20 octets (3)", func(b []byte) []byte { return b[:19] }, ErrTruncated, ResultInvalidMessageLength},
		{"no octets are no header (3)", func(b []byte) []byte { return nil }, ErrTruncated, ResultInvalidMessageLength},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := row.change(append([]byte(nil), good...))
			h, err := ParseHeader(b)
			if !errors.Is(err, row.want) {
				t.Fatalf("ParseHeader: %v, want %v", err, row.want)
			}
			if err != nil {
				if got := ResultCode(err); got != row.result {
					t.Errorf("ResultCode %d, want %d", got, row.result)
				}
				return
			}
			if h.Command != CommandAccounting || h.Application != ApplicationAccounting ||
				h.HopByHop != 0x01020304 || h.EndToEnd != 0x05060708 || h.Flags&0xf0 != 0xc0 {
				t.Errorf("header %+v", h)
			}
		})
	}
}

func TestParseMessage(t *testing.T) {
	for name, b := range wiretest.Hex(t) {
		h, avps, err := ParseMessage(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := Check(avps); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := AppendHeader(nil, h); string(got) != string(b[:HeaderLen]) {
			t.Errorf("%s: header encodes to %x", name, got)
		}
		for _, cut := range [][]byte{b[:len(b)-4], append(append([]byte(nil), b...), 0, 0, 0, 0)} {
			if _, _, err := ParseMessage(cut); !errors.Is(err, ErrLength) {
				t.Errorf("%s at %d octets: %v, want ErrLength", name, len(cut), err)
			}
		}
	}
}

func TestSet(t *testing.T) {
	b := AppendHeader(nil, Header{Flags: FlagRequest, Command: CommandAccounting})
	b = AppendUint32(b, ResultCodeAVP, 0, FlagMandatory, ResultSuccess)
	SetLength(b)
	SetFlags(b, FlagRequest|FlagRetransmitted)
	SetHopByHop(b, 9)
	SetEndToEnd(b, 10)
	h, avps, err := ParseMessage(b)
	want := Header{Length: 32, Flags: 0x90, Command: CommandAccounting, HopByHop: 9, EndToEnd: 10}
	if err != nil || h != want || len(avps) != 12 {
		t.Errorf("ParseMessage = %+v, %d octets, %v; want %+v", h, len(avps), err, want)
	}
}
