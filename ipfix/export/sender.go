package export

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"time"

	"tollbridge/ipfix"
)

// A sender is what the carriers have in common: a connection, and the number
// of Data Records sent over it. Sequence numbers count those of one Transport
// Session (RFC 7011, Section 3.1), so each begins at 0.
type sender struct {
	conn       net.Conn
	cfg        Config               // MaxMessage is what the path allows
	limit      func(maxMessage int) // tells the Process of a new MaxMessage
	unmeasured int                  // see Process
	sequence   uint32
	clock      clock
	announced  int   // Templates that the Collecting Process was sent
	counted    Stats // since take
}

func (s *sender) take() Stats {
	c := s.counted
	s.counted = Stats{}
	return c
}

// stamp writes the header of a Message that is about to leave.
func (s *sender) stamp(msg []byte, now time.Time) {
	ipfix.Header{
		Length:     uint16(len(msg)),
		ExportTime: s.clock.data(now),
		Sequence:   s.sequence,
		Domain:     s.cfg.Domain,
	}.Append(msg[:0])
}

// templateMessages returns Messages of Template Records. They take the
// sequence number of the Message after them.
func (s *sender) templateMessages(templates []*ipfix.Template, now time.Time) [][]byte {
	if len(templates) == 0 {
		return nil
	}
	var messages [][]byte
	e := ipfix.NewEncoder(s.cfg.Domain, s.cfg.MaxMessage)
	cut := func() {
		msg := bytes.Clone(e.Flush(0))
		s.clock.templates(now)
		s.stamp(msg, now)
		messages = append(messages, msg)
	}
	for _, t := range templates {
		err := e.AddTemplate(t)
		if errors.Is(err, ipfix.ErrFull) {
			cut()
			err = e.AddTemplate(t)
		}
		if errors.Is(err, ipfix.ErrLength) {
			s.cfg.Log.Error("template does not fit the path's MTU", "template", t.ID, "octets", s.cfg.MaxMessage)
			continue
		}
		if err != nil {
			panic(fmt.Sprintf("export: internal error: template %d was accepted but %v", t.ID, err))
		}
	}
	if e.Len() > 0 {
		cut()
	}
	return messages
}
