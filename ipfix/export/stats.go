package export

// Stats count what a Process did since it began.
type Stats struct {
	Records          uint64 // Data Records handed to the kernel
	Messages         uint64 // Messages with Data Records, handed to the kernel
	TemplateMessages uint64 // Messages with Templates, likewise
	Octets           uint64 // of both

	LostRecords  uint64 // that the kernel refused to send over UDP, or dropped with DropWhenFull
	LostMessages uint64 // that the kernel refused

	Connections uint64 // that were established; over UDP, sockets
	Failures    uint64 // attempts to connect that failed
	Moved       uint64 // connections left for one to a preferred Collecting Process
	Broken      uint64 // connections that ended otherwise than by a close of either side

	QueuedRecords  uint64 // that wait for the kernel now, or for their Message to fill
	QueuedMessages uint64
}

// Stats returns a snapshot, whose counts agree with each other.
func (p *Process) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.counts
	s.QueuedRecords = uint64(p.queue.records + p.encoder.Records())
	s.QueuedMessages = uint64(len(p.queue.messages))
	if p.encoder.Records() > 0 {
		s.QueuedMessages++
	}
	return s
}

// add adds what a carrier counts.
func (s *Stats) add(c Stats) {
	s.Records += c.Records
	s.Messages += c.Messages
	s.TemplateMessages += c.TemplateMessages
	s.Octets += c.Octets
	s.LostRecords += c.LostRecords
	s.LostMessages += c.LostMessages
}
