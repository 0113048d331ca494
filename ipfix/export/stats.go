package export

// Stats count what a Process did since it began.
type Stats struct {
	Records          uint64 // Data Records handed to the kernel
	Messages         uint64 // Messages with Data Records, handed to the kernel
	TemplateMessages uint64 // Messages with Templates, likewise
	Octets           uint64 // of both

	LostRecords  uint64 // that the kernel refused to send over UDP, or dropped with DropWhenFull, or damaged in the Backlog
	LostMessages uint64 // that the kernel refused
	Abandoned    uint64 // Messages that SCTP gave up as Config.Lifetime was over, as the kernel counts; Messages has them

	Connections uint64 // that were established; over UDP, sockets
	Failures    uint64 // attempts to connect that failed
	Moved       uint64 // connections left for one to a preferred Collecting Process
	Broken      uint64 // connections that ended otherwise than by a close of either side

	QueuedRecords  uint64 // that wait for the kernel now, or for their Message to fill
	QueuedMessages uint64 // with Acknowledged: that are not acknowledged

	// Of acknowledged export.

	Resent   uint64 // Messages handed to the kernel that were so before; Messages and Records count them once
	Answers  uint64 // acknowledgements that were news
	HeldUp   uint64 // times that a Collecting Process began to be held up
	Pulls    uint64 // requests for what is in the flow cache
	Damaged  uint64 // Messages that the Backlog could not read as they were written; LostRecords has their records, as far as they are known
	Position uint64 // of the latest Message in the Backlog
	Acked    uint64 // up to which Messages were acknowledged
}

// Stats returns a snapshot, whose counts agree with each other.
func (p *Process) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.counts
	s.QueuedRecords = uint64(p.queue.records + p.encoder.Records())
	s.QueuedMessages = uint64(len(p.queue.messages))
	if n := p.encoder.Records(); n > 0 && p.keeping == nil {
		s.QueuedMessages++
	} else if n > 1 { // the Identity apart
		s.QueuedMessages++
	}
	if p.keeping != nil {
		k := p.keeping.backlog.Stats()
		s.QueuedMessages += uint64(k.Messages)
		s.Position, s.Acked = k.Position, k.Acked
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
	s.Abandoned += c.Abandoned
	s.Resent += c.Resent
}
