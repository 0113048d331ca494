package dict

import (
	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

// appendCorrection appends a Correction AVP.
func (d *Dictionary) appendCorrection(b []byte, c *acct.Correction) []byte {
	direction := uint32(Debit)
	if c.Credit {
		direction = Credit
	}
	b, group := avp.Begin(b, Correction, d.vendor, 0)
	b = avp.AppendString(b, CorrectedSession, d.vendor, 0, c.SessionID)
	b = avp.AppendUint32(b, CorrectedNumber, d.vendor, 0, c.Number)
	b = avp.AppendUint32(b, CorrectionDirection, d.vendor, 0, direction)
	if c.Reason != "" {
		b = avp.AppendString(b, CorrectionReason, d.vendor, 0, c.Reason)
	}
	avp.End(b, group)
	return b
}

// parseCorrection reads a Correction AVP. One that does not say in which
// direction it goes is refused: it is about money.
func (d *Dictionary) parseCorrection(group avp.AVP) (*acct.Correction, error) {
	var c acct.Correction
	directed := false
	for a, err := range avp.Scan(group.Data) {
		switch {
		case err != nil:
		case a.Is(CorrectedSession, d.vendor):
			c.SessionID = string(a.Data)
		case a.Is(CorrectedNumber, d.vendor):
			c.Number, err = a.Uint32()
		case a.Is(CorrectionDirection, d.vendor):
			var n uint32
			if n, err = a.Uint32(); err == nil && n > Credit {
				err = &avp.DecodeError{What: "Correction-Direction", Err: avp.ErrValue}
			}
			c.Credit, directed = n == Credit, true
		case a.Is(CorrectionReason, d.vendor):
			c.Reason = string(a.Data)
		}
		if err != nil {
			return nil, err
		}
	}
	if !directed {
		return nil, &avp.DecodeError{What: "Correction", Err: avp.ErrValue}
	}
	return &c, nil
}
