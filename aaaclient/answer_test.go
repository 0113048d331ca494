package aaaclient

import (
	"strings"
	"testing"

	"tollbridge/aaaclient/peer"
	"tollbridge/dict/avp"
)

func u32(code, v uint32) []byte { return avp.AppendUint32(nil, code, 0, avp.FlagMandatory, v) }

func TestParseAnswer(t *testing.T) {
	text := func(code uint32, s string) []byte { return avp.AppendString(nil, code, 0, 0, s) }
	group := func(code uint32, inner []byte) []byte { return avp.Append(nil, code, 0, avp.FlagMandatory, inner) }
	for name, test := range map[string]struct {
		avps   []byte
		result uint32
		host   string
		reason string
		bad    bool
	}{
		"success":                   {avps: u32(avp.ResultCodeAVP, 2001), result: 2001},
		"Experimental-Result (7.6)": {avps: group(avp.ExperimentalResult, append(u32(avp.VendorID, 10415), u32(avp.ExperimentalResultCode, 5030)...)), result: 5030, reason: "Experimental-Result of vendor 10415"},
		"neither":                   {avps: text(avp.OriginHost, "a.example"), host: "a.example"},
		"Error-Reporting-Host before Origin-Host":         {avps: append(append(u32(avp.ResultCodeAVP, 3002), text(avp.OriginHost, "relay.example")...), text(avp.ErrorReportingHost, "far.example")...), result: 3002, host: "far.example"},
		"5014 with the malformed AVP in Failed-AVP (7.5)": {avps: append(u32(avp.ResultCodeAVP, 5014), group(avp.FailedAVP, []byte{0, 0, 1, 8, 0x40, 0, 0, 99})...), result: 5014, reason: "Failed-AVP 0000010840000063"},
		"an AVP without data in Failed-AVP":               {avps: append(u32(avp.ResultCodeAVP, 5005), group(avp.FailedAVP, text(avp.SessionID, ""))...), result: 5005, reason: "Failed-AVP code 263"},
		"text is made safe for a log":                     {avps: append(u32(avp.ResultCodeAVP, 5012), text(avp.ErrorMessage, "a\x1b[2Jb\xff"+strings.Repeat("x", 500))...), result: 5012, reason: "a [2Jb?" + strings.Repeat("x", 249)},
		"a vendor's AVP of the same code":                 {avps: append(u32(avp.ResultCodeAVP, 2001), avp.AppendUint32(nil, avp.ResultCodeAVP, 9, 0, 5001)...), result: 2001},
		"Result-Code of two octets":                       {avps: text(avp.ResultCodeAVP, "ab"), bad: true},
		"an AVP beyond the end":                           {avps: append(u32(avp.ResultCodeAVP, 2001), 0, 0, 1, 8, 0x40, 0, 1, 0), bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := parseAnswer(peer.Message{Octets: append(make([]byte, avp.HeaderLen), test.avps...)})
			if (err != nil) != test.bad {
				t.Fatalf("error %v", err)
			}
			if err == nil && (a.result != test.result || a.reason != test.reason || a.host != test.host) {
				t.Errorf("got %+v", a)
			}
		})
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(u32(avp.ResultCodeAVP, 2001))
	f.Add(append(u32(avp.ResultCodeAVP, 5014), avp.Append(nil, avp.FailedAVP, 0, 0, []byte{0, 0, 1, 8, 0x40, 0, 0, 99})...))
	f.Add(avp.Append(nil, avp.ExperimentalResult, 0, 0, u32(avp.ExperimentalResultCode, 5030)))
	f.Add([]byte{0, 0, 1, 8})
	f.Fuzz(func(t *testing.T, avps []byte) {
		a, err := parseAnswer(peer.Message{Octets: append(make([]byte, avp.HeaderLen), avps...)})
		if err == nil && avp.Check(avps) != nil {
			t.Error("a malformed answer is taken")
		}
		if len(a.reason) > 8*maxReason || strings.ContainsFunc(a.reason, func(r rune) bool { return r < ' ' }) {
			t.Errorf("reason %q", a.reason)
		}
	})
}
