package file

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"tollbridge/ipfix"
)

// IANA protocol numbers.
const (
	protoTCP      = 6
	protoUDP      = 17
	protoFragment = 44
)

// ErrGap says that octets of a TCP connection are missing from a capture.
var ErrGap = errors.New("octets of the connection are missing")

// A CaptureError says where in a capture a Message is not what it seems.
type CaptureError struct {
	Packet  int64 // number of the packet, from 1
	Session Session
	Err     error
}

func (e *CaptureError) Error() string {
	s := e.Session
	return fmt.Sprintf("file: packet %d, %v %v to %v: %v", e.Packet, s.Transport, s.Exporter, s.Collector, e.Err)
}

func (e *CaptureError) Unwrap() error { return e.Err }

// CaptureConfig says what a Capture does with what it finds.
type CaptureConfig struct {
	// Ports of Collecting Processes: all that goes to one is a Message. Other
	// payloads are Messages by their looks; where one went by its looks
	// before, all is taken for Messages too.
	Ports []uint16

	// Message takes a Message; its error ends the reading. Required.
	Message func(Message) error

	// Damage takes what is wrong with a payload, a *CaptureError; the reading
	// goes on behind it. Its error ends the reading. nil ignores.
	Damage func(error) error
}

// A Capture finds Messages in captured packets: in UDP datagrams, and in TCP
// connections, which it puts together. Its memory is bounded: by maxStreams
// connections, and maxHeld octets that came too early in each. It belongs to
// one goroutine.
type Capture struct {
	config     CaptureConfig
	ports      map[uint16]bool
	collectors map[netip.AddrPort]bool // where Messages went by their looks
	streams    map[Session]*stream
	order      []Session // of streams, oldest first
	packet     int64
	at         time.Time
}

const (
	maxStreams    = 1024
	maxHeld       = 1 << 20
	maxCollectors = 1 << 16
)

// NewCapture returns a Capture that has seen nothing.
func NewCapture(cfg CaptureConfig) *Capture {
	c := &Capture{config: cfg, ports: make(map[uint16]bool), collectors: make(map[netip.AddrPort]bool), streams: make(map[Session]*stream)}
	for _, p := range cfg.Ports {
		c.ports[p] = true
	}
	return c
}

// Packet reads the IP packet, as far as it was captured, of the packet of that
// number. Errors are those of the functions in the Config. Packets that are not
// IP, UDP or TCP, or are cut off before the payload, are ignored.
func (c *Capture) Packet(number int64, at time.Time, ip []byte) error {
	c.packet, c.at = number, at
	protocol, from, to, b, ok := transport(ip)
	if !ok {
		return nil
	}
	switch protocol {
	case protoUDP:
		return c.datagram(from, to, b)
	case protoTCP:
		return c.segment(from, to, b)
	}
	return nil
}

// transport finds the header and payload of UDP or TCP in an IP packet. Of
// fragments there is none.
func transport(b []byte) (protocol byte, from, to netip.Addr, segment []byte, ok bool) {
	if len(b) < 20 {
		return
	}
	switch b[0] >> 4 {
	case 4:
		header, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
		if header < 20 || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
			return
		}
		if total == 0 { // of a segment that the host's offloads have yet to cut
			total = len(b)
		}
		if end := min(total, len(b)); header <= end {
			return b[9], netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[header:end], true
		}
	case 6:
		if len(b) < 40 {
			return
		}
		protocol, from, to = b[6], netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		end := len(b)
		if n := int(binary.BigEndian.Uint16(b[4:])); n > 0 {
			end = min(end, 40+n)
		}
		protocol, segment = skipExtensions(protocol, b[40:end])
		return protocol, from, to, segment, true
	}
	return
}

// skipExtensions walks over IPv6 extension headers (RFC 8200, Section 4). The
// protocol is that of a fragment if there is no more to see.
func skipExtensions(next byte, b []byte) (byte, []byte) {
	for {
		switch next {
		case 0, 43, 60: // Hop-by-Hop, Routing and Destination Options
			if len(b) < 8 || len(b) < 8+8*int(b[1]) {
				return protoFragment, nil
			}
			next, b = b[0], b[8+8*int(b[1]):]
		default:
			return next, b
		}
	}
}

// wanted reports whether what goes to an address is Messages, given the start
// of it.
func (c *Capture) wanted(to netip.AddrPort, b []byte) bool {
	if c.ports[to.Port()] || c.collectors[to] {
		return true
	}
	if !looksLikeMessage(b) {
		return false
	}
	if len(c.collectors) < maxCollectors {
		c.collectors[to] = true
	}
	return true
}

func (c *Capture) datagram(from, to netip.Addr, b []byte) error {
	if len(b) < 8 {
		return nil
	}
	s := Session{ipfix.UDP, netip.AddrPortFrom(from, binary.BigEndian.Uint16(b)), netip.AddrPortFrom(to, binary.BigEndian.Uint16(b[2:]))}
	length := int(binary.BigEndian.Uint16(b[4:]))
	b = b[8:]
	if length >= 8 {
		b = b[:min(len(b), length-8)]
	}
	if len(b) == 0 || !c.wanted(s.Collector, b) {
		return nil
	}
	var stop error
	err := cut(b, func(msg []byte) error {
		stop = c.message(s, msg)
		return stop
	})
	if stop != nil || err == nil {
		return stop
	}
	return c.damage(s, err)
}

func (c *Capture) message(s Session, msg []byte) error {
	return c.config.Message(Message{Octets: msg, Packet: c.packet, Time: c.at, Session: s})
}

func (c *Capture) damage(s Session, err error) error {
	if c.config.Damage == nil {
		return nil
	}
	return c.config.Damage(&CaptureError{c.packet, s, err})
}

// A stream is one direction of a TCP connection.
type stream struct {
	session Session
	state   streamState
	next    uint32 // sequence number of what follows data
	data    []byte // in order, and not yet cut into Messages
	early   []segment
	held    int // octets in early
}

// A segment came before what belongs before it.
type segment struct {
	sequence uint32
	data     []byte
}

type streamState uint8

const (
	unknown streamState = iota // too little was seen of it
	messages
	foreign // does not carry Messages
)

// TCP flags (RFC 9293, Section 3.1).
const (
	flagSYN = 0x02
)

func (c *Capture) segment(from, to netip.Addr, b []byte) error {
	if len(b) < 20 || len(b) < int(b[12]>>4)*4 || b[12]>>4 < 5 {
		return nil
	}
	s := Session{ipfix.TCP, netip.AddrPortFrom(from, binary.BigEndian.Uint16(b)), netip.AddrPortFrom(to, binary.BigEndian.Uint16(b[2:]))}
	sequence, payload := binary.BigEndian.Uint32(b[4:]), b[int(b[12]>>4)*4:]
	st := c.streams[s]
	if b[13]&flagSYN != 0 {
		sequence++
		if st != nil && st.next == sequence && len(st.early) == 0 {
			return nil // sent again
		}
		if err := c.end(s); err != nil { // an earlier connection between the same ports
			return err
		}
		_, err := c.begin(s, sequence)
		return err
	}
	if len(payload) == 0 || st != nil && st.state == foreign {
		return nil
	}
	if st == nil {
		// The capture began within the connection.
		if !c.wanted(s.Collector, payload) || !looksLikeMessage(payload) {
			return nil
		}
		var err error
		if st, err = c.begin(s, sequence); err != nil {
			return err
		}
	}
	st.add(sequence, payload)
	if err := c.read(st); err != nil {
		return err
	}
	if st.held > maxHeld {
		return c.skip(st)
	}
	return nil
}

// begin makes the stream of a new connection, and room for it.
func (c *Capture) begin(s Session, next uint32) (*stream, error) {
	if len(c.order) == maxStreams {
		if err := c.end(c.order[0]); err != nil {
			return nil, err
		}
	}
	st := &stream{session: s, next: next}
	c.streams[s] = st
	c.order = append(c.order, s)
	return st, nil
}

// add takes a segment, and what follows of the early ones.
func (st *stream) add(sequence uint32, b []byte) {
	if behind := int32(st.next - sequence); behind < 0 {
		st.early = append(st.early, segment{sequence, slices.Clone(b)})
		st.held += len(b)
		return
	} else if int(behind) < len(b) {
		st.data = append(st.data, b[behind:]...)
		st.next = sequence + uint32(len(b))
	}
	for i := 0; i < len(st.early); i++ {
		if e := st.early[i]; int32(st.next-e.sequence) >= 0 {
			st.early = slices.Delete(st.early, i, i+1)
			st.held -= len(e.data)
			if behind := int(int32(st.next - e.sequence)); behind < len(e.data) {
				st.data = append(st.data, e.data[behind:]...)
				st.next = e.sequence + uint32(len(e.data))
				i = -1
				continue
			}
			i--
		}
	}
}

// read cuts Messages off the stream's data.
func (c *Capture) read(st *stream) error {
	if st.state == unknown {
		if len(st.data) < ipfix.HeaderLength+setHeader {
			return nil
		}
		if !c.wanted(st.session.Collector, st.data) || binary.BigEndian.Uint16(st.data) != ipfix.Version && !c.ports[st.session.Collector.Port()] {
			st.state, st.data, st.early, st.held = foreign, nil, nil, 0
			return nil
		}
		st.state = messages
	}
	at := 0
	for st.state == messages {
		n, err := ipfix.HeaderLength, error(nil)
		if len(st.data)-at >= n {
			var h ipfix.Header
			h, err = ipfix.ParseHeader(st.data[at:])
			n = int(h.Length)
		}
		if err != nil {
			if err := c.damage(st.session, err); err != nil {
				return err
			}
			// A Collecting Process closes the connection (RFC 7011, Section 10.3).
			n = resync(st.data[at:])
			if n < 0 {
				at = len(st.data)
				break
			}
			at += n
			continue
		}
		if n > len(st.data)-at {
			break
		}
		if err := c.message(st.session, st.data[at:at+n:at+n]); err != nil {
			return err
		}
		at += n
	}
	st.data = st.data[:copy(st.data, st.data[at:])]
	return nil
}

// resync returns where in b, its start excepted, a Message seems to begin, -1
// for nowhere.
func resync(b []byte) int {
	for at := 1; at+ipfix.HeaderLength+setHeader <= len(b); at++ {
		if binary.BigEndian.Uint16(b[at:]) == ipfix.Version && looksLikeMessage(b[at:]) {
			return at
		}
	}
	return -1
}

// skip goes on behind a gap of the stream, with what came early.
func (c *Capture) skip(st *stream) error {
	if len(st.early) == 0 {
		return nil
	}
	first := slices.MinFunc(st.early, func(a, b segment) int { return int(int32(a.sequence - b.sequence)) })
	if st.state != foreign {
		if err := c.damage(st.session, fmt.Errorf("%d octets after sequence number %d: %w", first.sequence-st.next, st.next, ErrGap)); err != nil {
			return err
		}
	}
	st.data, st.next = st.data[:0], first.sequence
	st.add(st.next, nil)
	if !looksLikeMessage(st.data) {
		n := resync(st.data)
		if n < 0 {
			n = len(st.data)
		}
		st.data = st.data[:copy(st.data, st.data[n:])]
	}
	return c.read(st)
}

// end gives what a stream still holds, and forgets it.
func (c *Capture) end(s Session) error {
	st := c.streams[s]
	if st == nil {
		return nil
	}
	for len(st.early) > 0 {
		if err := c.skip(st); err != nil {
			return err
		}
	}
	delete(c.streams, s)
	c.order = slices.DeleteFunc(c.order, func(o Session) bool { return o == s })
	if st.state == messages && len(st.data) > 0 {
		return c.damage(s, fmt.Errorf("the last %d octets: %w", len(st.data), ErrGap))
	}
	return nil
}

// Close gives what connections still hold at the end of the capture. Errors
// are those of the functions in the Config.
func (c *Capture) Close() error {
	for len(c.order) > 0 {
		if err := c.end(c.order[0]); err != nil {
			return err
		}
	}
	return nil
}
