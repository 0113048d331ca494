package aaaclient

import (
	"fmt"
	"strings"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

// An answer is what delivery needs of an Accounting-Answer, or of an
// answer-message with the E bit that came in its place.
type answer struct {
	hopByHop, endToEnd uint32
	result             uint32 // Result-Code or Experimental-Result-Code; 0 for neither
	vendor             uint32 // of an Experimental-Result-Code
	origin             []byte // Origin-Host; nil for none
	realtime           uint32 // Accounting-Realtime-Required; 0 for none
	interim            uint32 // Acct-Interim-Interval as acct.InterimInterval has it; 0 for none
	session            []byte // Session-Id; nil for none
	number             uint32 // Accounting-Record-Number, where hasNumber
	hasNumber          bool
	host               string // who refused: Error-Reporting-Host or Origin-Host
	reason             string // Error-Message and Failed-AVP of a refusal
}

// parseAnswer reads m. Unknown AVPs are passed over, so an answer of 5014 with
// the malformed AVP inside Failed-AVP reads like any other. An answer that is
// malformed itself is an error.
func parseAnswer(m peer.Message) (answer, error) {
	a := answer{hopByHop: m.HopByHop, endToEnd: m.EndToEnd}
	var reporting, text, failed []byte
	for v, err := range avp.Scan(m.AVPs()) {
		if err != nil {
			return a, fmt.Errorf("aaaclient: answer: %w", err)
		}
		if v.Vendor != 0 {
			continue
		}
		switch v.Code {
		case avp.SessionID:
			a.session = v.Data
		case avp.ResultCodeAVP:
			if a.result, err = v.Uint32(); err != nil {
				return a, fmt.Errorf("aaaclient: answer: Result-Code: %w", err)
			}
		case avp.ExperimentalResult:
			// Codes of vendors follow the classes of Result-Code (RFC 6733, Section 7.7).
			inner, ok := avp.Find(v.Data, avp.ExperimentalResultCode, 0)
			if !ok || a.result != 0 {
				continue
			}
			if a.result, err = inner.Uint32(); err != nil {
				return a, fmt.Errorf("aaaclient: answer: Experimental-Result-Code: %w", err)
			}
			if id, ok := avp.Find(v.Data, avp.VendorID, 0); ok {
				if a.vendor, err = id.Uint32(); err != nil {
					return a, fmt.Errorf("aaaclient: answer: Vendor-Id: %w", err)
				}
			}
		case avp.AccountingRecordNumber:
			if a.number, err = v.Uint32(); err != nil {
				return a, fmt.Errorf("aaaclient: answer: Accounting-Record-Number: %w", err)
			}
			a.hasNumber = true
		case avp.AccountingRealtimeRequired:
			if a.realtime, err = v.Uint32(); err != nil {
				return a, fmt.Errorf("aaaclient: answer: Accounting-Realtime-Required: %w", err)
			}
		case avp.AcctInterimInterval:
			if a.interim, err = v.Uint32(); err != nil {
				return a, fmt.Errorf("aaaclient: answer: Acct-Interim-Interval: %w", err)
			}
			if a.interim == 0 {
				a.interim = acct.NoInterim
			}
		case avp.OriginHost:
			a.origin = v.Data
		case avp.ErrorReportingHost:
			reporting = v.Data
		case avp.ErrorMessage:
			text = v.Data
		case avp.FailedAVP:
			failed = v.Data
		}
	}
	if a.result/1000 != 2 {
		a.host = printable(a.origin)
		if len(reporting) > 0 {
			a.host = printable(reporting)
		}
		a.reason = reason(text, failed)
		if a.vendor != 0 {
			a.reason = strings.TrimSuffix(fmt.Sprintf("Experimental-Result of vendor %d; %s", a.vendor, a.reason), "; ")
		}
	}
	return a, nil
}

// maxReason bounds what of a peer's explanation is kept, in octets each.
const maxReason = 256

// reason puts an Error-Message and the content of a Failed-AVP into words.
func reason(text, failed []byte) string {
	var b strings.Builder
	b.WriteString(printable(text))
	for v, err := range avp.Scan(failed) {
		if b.Len() > 0 {
			b.WriteString("; ")
		}
		if err != nil && v.Data == nil {
			fmt.Fprintf(&b, "Failed-AVP %x", failed[:min(len(failed), maxReason)])
			break
		}
		fmt.Fprintf(&b, "Failed-AVP code %d", v.Code)
		if v.Vendor != 0 {
			fmt.Fprintf(&b, " vendor %d", v.Vendor)
		}
		if len(v.Data) > 0 {
			fmt.Fprintf(&b, " data %x", v.Data[:min(len(v.Data), 64)])
		}
		if b.Len() > 2*maxReason {
			break
		}
	}
	return b.String()
}

// printable returns what a peer wrote as valid UTF-8 without control
// characters, bounded.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(b[:min(len(b), maxReason)]), "?"))
}
