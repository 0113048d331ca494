package flowfiles

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"tollbridge/cmd/tollbridge/internal/terminal"
	"tollbridge/ipfix"
	"tollbridge/ipfix/file"
	"tollbridge/meter/pcap"
)

// portsFlag adds --port, which says what in a capture is flow records.
func portsFlag(cmd *cobra.Command) *[]uint16 {
	var ports portList
	cmd.Flags().Var(&ports, "port", "in captures, take all that goes to these ports for messages; otherwise they are known by their looks")
	return (*[]uint16)(&ports)
}

// A portList is a flag of port numbers.
type portList []uint16

func (p *portList) String() string { return "" }

// Type is the flag's type in help texts.
func (p *portList) Type() string { return "PORT" }

// Set adds a port.
func (p *portList) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not a port, 1 to 65535", s)
	}
	*p = append(*p, uint16(n))
	return nil
}

// A messageInput reads the messages of several files in one template context.
type messageInput struct {
	cmd     *cobra.Command
	ports   []uint16
	bar     bool // show progress
	salvage bool // read what is there of damaged NetFlow 5 packets
	message func(*message) error
	fault   func(error) // takes what is wrong with a file; nil prints it

	sessions map[file.Session]*ipfix.Session
	order    []file.Session // of sessions, oldest first
	faults   int
	unknown  int // Data Sets without a Template
}

func newMessageInput(cmd *cobra.Command, ports []uint16) *messageInput {
	return &messageInput{cmd: cmd, ports: ports, sessions: make(map[file.Session]*ipfix.Session)}
}

// A message is a message in a file.
type message struct {
	file.Message
	name   string // of the file
	in     *messageInput
	result ipfix.Result
}

// where says where a message is, for people.
func (m *message) where() string {
	if m.Packet > 0 {
		return fmt.Sprintf("%s: packet %d", m.name, m.Packet)
	}
	return fmt.Sprintf("%s: octet %d", m.name, m.Offset)
}

// session returns the session that the message belongs to. Files that are no
// captures share one. It has the rules of UDP, for files are recorded from
// UDP too: a Template may change without a withdrawal.
func (m *message) session() *ipfix.Session {
	s := m.in.sessions[m.Session]
	if s == nil {
		transport := m.Session.Transport
		if transport == 0 {
			transport = ipfix.UDP
		}
		s = ipfix.NewSession(transport)
		s.Salvage = m.in.salvage
		m.in.sessions[m.Session] = s
		m.in.order = append(m.in.order, m.Session)
	}
	return s
}

// decode decodes the message, and calls visit for its Data Sets, with the
// session that knows their Template. A malformed message is reported; it then
// returns false, unless it was salvaged. A checksum that does not match is
// reported too.
func (m *message) decode(visit func(*ipfix.Session, ipfix.DataSet)) bool {
	var sum error
	var err error
	own := m.session()
	m.result, err = own.Decode(m.Octets, func(s ipfix.DataSet) {
		session := own
		if s.Template == nil {
			session, s = m.in.borrow(m, s)
		}
		if s.Template == nil {
			m.in.unknown++
		}
		if _, err := file.VerifyChecksum(m.Octets, s); err != nil {
			sum = err
		}
		visit(session, s)
	})
	if err == nil && sum != nil {
		m.in.report(fmt.Errorf("%s: %w", m.where(), sum))
		return true // all of it was understood
	}
	switch {
	case err == nil:
		return true
	case m.in.salvage && errors.Is(err, ipfix.ErrCount):
		m.in.report(fmt.Errorf("%s: %w: read as far as it goes, but a collector refuses it", m.where(), err))
		return true
	}
	m.in.report(fmt.Errorf("%s: %w: the message is skipped whole", m.where(), err))
	return false
}

// borrow looks for the Template of a Data Set in the other sessions, those of
// the same exporter first. It must be the same in all that have it; otherwise
// the Data Set and its session are returned as they are.
func (in *messageInput) borrow(m *message, s ipfix.DataSet) (*ipfix.Session, ipfix.DataSet) {
	own := in.sessions[m.Session]
	for _, near := range []bool{true, false} {
		var found *ipfix.Session
		var template *ipfix.Template
		for _, key := range in.order {
			if near != (key.Exporter.Addr() == m.Session.Exporter.Addr()) || key == m.Session {
				continue
			}
			t := in.sessions[key].Template(s.Header.Domain, s.ID)
			if t == nil {
				continue
			}
			if template != nil && t.Fingerprint() != template.Fingerprint() {
				return own, s
			}
			found, template = in.sessions[key], t
		}
		if found == nil {
			continue
		}
		if b, err := found.DataSetAt(m.Octets, s.Offset); err == nil {
			return found, b
		}
		return own, s
	}
	return own, s
}

// report takes a fault.
func (in *messageInput) report(err error) {
	in.faults++
	if in.fault != nil {
		in.fault(err)
		return
	}
	terminal.PrintError(in.cmd.ErrOrStderr(), err)
}

// mentionUnknown says how many Data Sets could not be read, if any.
func (in *messageInput) mentionUnknown() {
	if in.unknown > 0 {
		fmt.Fprintf(in.cmd.ErrOrStderr(), "tollbridge: data sets without their template: %d; name the file that has it before the others\n", in.unknown)
	}
}

// verdict is the error of a command whose input has faults.
func (in *messageInput) verdict() error {
	in.mentionUnknown()
	if in.faults > 0 {
		return terminal.ErrTold
	}
	return nil
}

// read reads files in order. Its error is one that ends the command; damage
// to a file is a fault.
func (in *messageInput) read(names []string) error {
	for _, name := range names {
		if err := in.readFile(name); err != nil {
			return err
		}
	}
	return nil
}

func (in *messageInput) readFile(name string) error {
	var f *os.File
	if name == "-" {
		f, name = os.Stdin, "standard input"
	} else {
		var err error
		if f, err = os.Open(name); err != nil {
			return fmt.Errorf("ipfix: %w", err)
		}
		defer f.Close()
	}
	size := int64(-1)
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		size = info.Size()
	}
	w := io.Discard
	if in.bar {
		w = in.cmd.ErrOrStderr()
	}
	bar := terminal.NewProgress(w, name, size)
	defer bar.Finish() //nolint:errcheck // a bar that can't be drawn harms nothing
	r := bufio.NewReaderSize(f, 1<<16)
	start, err := r.Peek(4)
	switch {
	case err != nil && err != io.EOF:
		return fmt.Errorf("ipfix: %w", err)
	case pcap.IsCapture(start):
		return in.readCapture(name, r, bar)
	case file.IsMessages(start):
		return in.readMessages(name, r, bar)
	case len(start) == 0:
		return nil
	}
	return fmt.Errorf("ipfix: %s: begins with % x: is neither a capture (pcap, pcapng) nor messages of IPFIX or NetFlow 5 or 9", name, start)
}

func (in *messageInput) readMessages(name string, r io.Reader, bar *progressbar.ProgressBar) error {
	f := file.NewReader(r)
	for {
		m, err := f.Next()
		bar.Set64(f.Octets()) //nolint:errcheck // a bar that can't be drawn harms nothing
		var damage *file.DamageError
		switch {
		case err == io.EOF:
			return in.cmd.Context().Err()
		case errors.As(err, &damage):
			skipped, err := f.Resync()
			if err != nil {
				return fmt.Errorf("ipfix: %s: %w", name, err)
			}
			in.report(fmt.Errorf("%s: octet %d: %w: skipped %d octets to %s", name, damage.Offset, damage.Err, skipped, resumed(f)))
			continue
		case err != nil:
			return fmt.Errorf("ipfix: %s: %w", name, err)
		}
		if err := in.give(name, m); err != nil {
			return err
		}
	}
}

// resumed says where reading goes on after damage.
func resumed(f *file.Reader) string {
	if f.AtEnd() {
		return "the end"
	}
	return "the next message"
}

func (in *messageInput) readCapture(name string, r io.Reader, bar *progressbar.ProgressBar) error {
	packets := pcap.NewReader(r)
	capture := file.NewCapture(file.CaptureConfig{
		Ports:   in.ports,
		Message: func(m file.Message) error { return in.give(name, m) },
		Damage: func(err error) error {
			in.report(fmt.Errorf("%s: %w", name, err))
			return nil
		},
	})
	var ps [32]pcap.Packet
	for number := int64(0); ; {
		n, err := packets.Read(ps[:])
		bar.Set64(packets.Octets()) //nolint:errcheck // a bar that can't be drawn harms nothing
		if err == io.EOF {
			break
		}
		if errors.Is(err, pcap.ErrFormat) || errors.Is(err, io.ErrUnexpectedEOF) {
			in.report(fmt.Errorf("%s: %w: the rest of the capture is lost", name, errCapture{err}))
			break
		}
		if err != nil {
			return fmt.Errorf("ipfix: %s: %w", name, err)
		}
		for i := range ps[:n] {
			number++
			p := &ps[i]
			etherType, offset, err := p.Link.Network(p.Data)
			if err != nil || etherType != pcap.EtherTypeIPv4 && etherType != pcap.EtherTypeIPv6 {
				continue
			}
			if err := capture.Packet(number, time.Unix(0, p.Time).UTC(), p.Data[offset:]); err != nil {
				return err
			}
		}
	}
	return capture.Close()
}

// errCapture is damage to a capture itself, so no message is cut off.
type errCapture struct{ error }

// give passes a message on, unless the command was interrupted.
func (in *messageInput) give(name string, m file.Message) error {
	if err := in.cmd.Context().Err(); err != nil {
		return err
	}
	return in.message(&message{Message: m, name: name, in: in})
}

// causes are the faults that are counted, by what they are counted as.
var causes = []struct {
	err  error
	name string
}{
	{file.ErrGap, "tcp_gap"},
	{file.ErrChecksum, "checksum"},
	{io.ErrUnexpectedEOF, "truncated"},
	{ipfix.ErrVersion, "version"},
	{ipfix.ErrLength, "length"},
	{ipfix.ErrCount, "count"},
	{ipfix.ErrTemplateID, "template_id"},
	{ipfix.ErrScope, "scope"},
	{ipfix.ErrEmpty, "empty_template"},
	{ipfix.ErrConflict, "template_conflict"},
	{ipfix.ErrLimit, "limit"},
}

// faultCause returns what a fault is counted as.
func faultCause(err error) string {
	if errors.As(err, new(errCapture)) {
		return "capture"
	}
	i := slices.IndexFunc(causes, func(c struct {
		err  error
		name string
	}) bool {
		return errors.Is(err, c.err)
	})
	if i < 0 {
		return "other"
	}
	return causes[i].name
}
