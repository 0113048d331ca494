package asm

import (
	"tollbridge/dedup"
	"tollbridge/internal/octets"
	"tollbridge/ipfix"
)

// A heldRecord is what of a Data Record outlives the Message while it is in
// suspense, beside its flow.
type heldRecord struct {
	identity   dedup.Identity
	identified bool   // the window does not remember the identity
	avps       []byte // of the flow, in the mode that needs them
}

// A held flow is one in suspense.
type held struct {
	flow flow
	heldRecord
}

// heldVersion is the first octet of an encoded held flow; below it is an
// encoded flow alone.
const heldVersion = 0x80

// appendHeld appends what parseHeld reads.
func appendHeld(b []byte, f *flow, r heldRecord) []byte {
	b = append(b, heldVersion)
	b = octets.AppendBytes(b, f.appendBinary(nil))
	if b = octets.AppendBool(b, r.identified); r.identified {
		b = r.identity.Append(b)
	}
	return octets.AppendBytes(b, r.avps)
}

func parseHeld(data []byte) (h held, err error) {
	if len(data) > 0 && data[0] < heldVersion {
		h.flow, err = parseFlow(data)
		return h, err
	}
	r := octets.NewReader(data)
	if r.Octet() != heldVersion {
		r.Fail()
	}
	f := r.Bytes()
	if h.identified = r.Bool(); h.identified {
		h.identity = dedup.ReadIdentity(&r)
	}
	h.avps = r.Bytes()
	if err := r.Close(); err != nil {
		return held{}, err
	}
	h.flow, err = parseFlow(f)
	return h, err
}

// heldRecord returns what is to be kept of record number i of the chunk;
// identified says that it has an identity, which the window did not take.
func (m *Module) heldRecord(set *ipfix.DataSet, i int, identified bool) heldRecord {
	c := &m.decoder
	h := heldRecord{identity: c.ids[i], identified: identified}
	if m.settings.Mode == ModeAAAClient {
		h.avps = m.flowAVPs(set.Template, c.octets[i])
	}
	return h
}
