package meter

// Stats counts what a Meter has seen since it was made.
//
//	Packets = Metered + NotIP + UnknownLink + Malformed + Dropped
type Stats struct {
	Packets     uint64 // given to the meter
	Metered     uint64 // part of a flow
	Octets      uint64 // IP octets of Metered
	NotIP       uint64 // ARP, LLDP, ...
	UnknownLink uint64 // of a LinkType that the meter does not know
	Malformed   Malformed
	Dropped     uint64 // not metered since a flow could not be exported

	KernelDropped uint64 // lost by the kernel before a live meter read them; not in Packets

	Flows    int // in the flow cache now
	Exported Exported
}

// Malformed counts packets without a usable IP header, by cause.
type Malformed struct {
	Truncated  uint64 // captured octets end before the addresses
	Version    uint64 // IP version contradicts the link layer
	IHL        uint64 // IPv4 header length below 20 octets
	Length     uint64 // IPv4 Total Length below the header's length
	BeyondWire uint64 // Total Length or Payload Length beyond the end of the packet
}

// Sum returns the packets of all causes.
func (m Malformed) Sum() uint64 {
	return m.Truncated + m.Version + m.IHL + m.Length + m.BeyondWire
}

// Exported counts flows exported, by flowEndReason.
type Exported struct {
	IdleTimeout     uint64
	ActiveTimeout   uint64
	EndOfFlow       uint64
	ForcedEnd       uint64
	LackOfResources uint64
}

// Sum returns the flows exported.
func (e Exported) Sum() uint64 {
	return e.IdleTimeout + e.ActiveTimeout + e.EndOfFlow + e.ForcedEnd + e.LackOfResources
}

// Stats returns a snapshot as of the latest batch of packets. It may be called
// at any time by any goroutine.
func (m *Meter) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.published
}

// publish lets Stats see what was counted.
func (m *Meter) publish() {
	s := &m.stats
	s.UnknownLink = m.verdicts[unknownLink]
	s.NotIP = m.verdicts[notIP]
	s.Malformed = Malformed{
		Truncated:  m.verdicts[truncated],
		Version:    m.verdicts[badVersion],
		IHL:        m.verdicts[badHeader],
		Length:     m.verdicts[badLength],
		BeyondWire: m.verdicts[beyondPacket],
	}
	s.Exported = Exported{
		IdleTimeout:     m.reasons[IdleTimeout],
		ActiveTimeout:   m.reasons[ActiveTimeout],
		EndOfFlow:       m.reasons[EndOfFlow],
		ForcedEnd:       m.reasons[ForcedEnd],
		LackOfResources: m.reasons[LackOfResources],
	}
	s.Flows = m.cache.used
	m.mu.Lock()
	m.published = *s
	m.mu.Unlock()
}
