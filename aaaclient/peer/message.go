package peer

import "tollbridge/dict/avp"

// A Message is a whole Diameter message in place. Its AVPs have not been
// checked.
type Message struct {
	avp.Header
	Octets []byte // header and AVPs
}

// AVPs returns the octets behind the header.
func (m Message) AVPs() []byte { return m.Octets[avp.HeaderLen:] }

// Request reports whether the R bit is set.
func (m Message) Request() bool { return m.Flags&avp.FlagRequest != 0 }

// AppendAnswerHeader appends the header of the answer to request m with that
// Result-Code: its identifiers and P bit, and the E bit for a protocol error
// (RFC 6733, Sections 6.2 and 7.1.3).
func AppendAnswerHeader(b []byte, m Message, result uint32) []byte {
	flags := m.Flags & avp.FlagProxiable
	if result/1000 == 3 {
		flags |= avp.FlagError
	}
	h := m.Header
	h.Length, h.Flags = 0, flags
	return avp.AppendHeader(b, h)
}

// AppendProxyInfo appends the Proxy-Info AVPs of a request unchanged and in
// order, which goes at the end of its answer (RFC 6733, Section 6.2).
func AppendProxyInfo(b, avps []byte) []byte {
	for a, err := range avp.Scan(avps) {
		if err != nil {
			break
		}
		if a.Is(avp.ProxyInfo, 0) {
			b = a.Append(b)
		}
	}
	return b
}

// AppendError appends a whole answer to request m that says no more than why
// it failed (RFC 6733, Section 7.2): Session-Id first where the request has
// one, an Error-Message unless text is empty, and a Failed-AVP unless failed
// holds no AVPs.
func (n Node) AppendError(b []byte, m Message, result uint32, text string, failed []byte) []byte {
	start := len(b)
	b = AppendAnswerHeader(b, m, result)
	if id, ok := avp.Find(m.AVPs(), avp.SessionID, 0); ok {
		b = avp.Append(b, avp.SessionID, 0, avp.FlagMandatory, id.Data)
	}
	b = n.appendOrigin(b)
	b = avp.AppendUint32(b, avp.ResultCodeAVP, 0, avp.FlagMandatory, result)
	b = appendExplanation(b, text, failed)
	b = AppendProxyInfo(b, m.AVPs())
	avp.SetLength(b[start:])
	return b
}

// appendExplanation appends what goes with a Result-Code that is not success.
func appendExplanation(b []byte, text string, failed []byte) []byte {
	if text != "" {
		b = avp.AppendString(b, avp.ErrorMessage, 0, 0, text)
	}
	if len(failed) > 0 {
		b = avp.Append(b, avp.FailedAVP, 0, avp.FlagMandatory, failed)
	}
	return b
}
