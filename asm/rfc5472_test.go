package asm

import (
	"bufio"
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/asm/classes"
	"tollbridge/dict"
	"tollbridge/ipfix"
)

// readHex reads commented hexadecimal.
func readHex(t *testing.T, name string) []byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var digits strings.Builder
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	return must(hex.DecodeString(digits.String()))
}

// The three Flow Records of RFC 5472, Section 2.1.1, become accounting
// records: of three users as an Accounting Service Module (Section 3.5.2),
// and with their flows as an AAA client (Section 3.5.1).
func TestRFC5472(t *testing.T) {
	msg := readHex(t, "../ipfix/testdata/rfc5472-2.1.1.hex")

	t.Run("ASM", func(t *testing.T) {
		settings := testSettings
		settings.Classes = []classes.Rule{{Name: "EF", DSCP: []uint8{46}}}
		b := newBridge(t, settings)
		b.users("file", bind("192.0.2.12", "ann"), bind("192.0.2.24", "bob"), bind("192.0.2.36", "eve"))
		s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
		b.add(acct.EntryMessage, s, msg)
		b.after(time.Minute)
		sum := b.checkpoint()
		if want := (acct.Count{Records: 3, Octets: 120868 + 310364 + 241239}); sum.Received != want || sum.Accounted != want {
			t.Errorf("received %+v, accounted %+v, want %+v", sum.Received, sum.Accounted, want)
		}
		wantLines(t, b.s.records,
			"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
			"12:00:00 bob asm.example;7;3/0 START in 0 out 0",
			"12:00:00 eve asm.example;7;5/0 START in 0 out 0",
			"12:01:00 ann asm.example;7;1/1 INTERIM in 120868 out 0 EF 120868/0",
			"12:01:00 bob asm.example;7;3/1 INTERIM in 310364 out 0 EF 310364/0",
			"12:01:00 eve asm.example;7;5/1 INTERIM in 241239 out 0 EF 241239/0",
		)
	})

	t.Run("AAA client", func(t *testing.T) {
		settings := testSettings
		settings.Mode = ModeAAAClient
		b := newBridge(t, settings)
		s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
		b.add(acct.EntryMessage, s, msg)
		b.checkpoint()
		wantLines(t, b.s.records,
			"12:00:00  asm.example;7;0/0 EVENT in 120868 out 0",
			"12:00:00  asm.example;7;1/0 EVENT in 310364 out 0",
			"12:00:00  asm.example;7;2/0 EVENT in 241239 out 0",
		)
		for i, r := range b.s.records {
			_, record, err := dict.For(0).ParseFlow(r.Flow)
			if want := string(msg[16+24+4+i*13:][:13]); err != nil || string(record) != want {
				t.Errorf("record %d: flow of % x (%v), want % x", i, record, err, want)
			}
		}
	})
}
