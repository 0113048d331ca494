package collect

import (
	"errors"
	"log/slog"
	"time"

	"tollbridge/ipfix"
)

// A transportSession is a Transport Session over a connection or an
// association, and belongs to the goroutine that reads it. It opens with its
// first well-formed Message, so that a mere port scan leaves no trace in the
// Journal.
type transportSession struct {
	*Process
	exporter *exporter
	session  Session
	answers  *answerer // nil where nobody is answered
	opened   bool
	number   uint64
	refused  int // Messages since the last well-formed one
}

// lastFew is how many malformed Messages in a row tell that an exporter
// malfunctions.
const lastFew = 5

// refuse counts a malformed Message, and reports whether the exporter clearly
// malfunctions, so that its Messages should be processed no longer (RFC 7011,
// Section 9.1).
func (s *transportSession) refuse(err error) (end bool) {
	s.malformed(s.exporter, s.session.Remote, err)
	if s.refused++; s.refused < lastFew {
		return false
	}
	s.logSession(slog.LevelWarn, "exporter malfunctions: its session is ended", s.exporter, "remote", s.session.Remote)
	return true
}

// take journals a well-formed Message, with the stream that it came over where
// that is SCTP, and has it acknowledged.
func (s *transportSession) take(at time.Time, stream uint16, msg []byte) (err error) {
	s.refused = 0
	if s.answers != nil {
		s.answers.blocked.Store(at.UnixNano()) // the Journal may block at once
	}
	if !s.opened {
		if s.number, err = s.open(at, s.exporter, s.session); err != nil {
			return err
		}
		s.opened = true
	}
	if s.answers == nil {
		_, err = s.journal(at, stream, msg)
		return err
	}
	position, err := s.journal(at, stream, msg)
	if err != nil {
		return err
	}
	s.answers.blocked.Store(0)
	s.answers.message(msg, position)
	return nil
}

func (s *transportSession) journal(at time.Time, stream uint16, msg []byte) (position uint64, err error) {
	if s.session.Transport == ipfix.SCTP {
		return s.streamMessage(at, s.exporter, s.number, stream, msg)
	}
	return s.message(at, s.exporter, s.number, msg)
}

// end gives the last acknowledgement and closes the session, if it is open. It
// adds what fails to err.
func (s *transportSession) end(err error) error {
	if s.answers != nil {
		s.answers.finish()
	}
	if s.opened {
		err = errors.Join(err, s.close(s.cfg.Now(), s.exporter, s.number))
	}
	return err
}
