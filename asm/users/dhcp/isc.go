package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// An iscFile reads dhcpd.leases and dhcpd6.leases: declarations, of which later
// ones replace earlier ones (dhcpd.leases(5)).
type iscFile struct{}

// parse reads the whole declarations of b, and returns how many octets they
// have.
func (iscFile) parse(b []byte, lease func(Lease), bad func(error)) (consumed int) {
	t := tokens{rest: string(b)}
	for {
		d, ok := t.statement()
		if !ok {
			return consumed
		}
		consumed = len(b) - len(t.rest)
		if err := d.declaration(lease); err != nil {
			bad(err)
		}
	}
}

// A token is a word, a string, or one of { } ;
type token struct {
	text   string
	quoted bool
}

func (t token) is(punctuation string) bool { return !t.quoted && t.text == punctuation }

// A statement is words, and the statements in the braces that follow, if any.
type statement struct {
	words []token
	body  []statement
}

// tokens are what is left of a file.
type tokens struct{ rest string }

// next returns the next token; false at the end of what is there.
func (t *tokens) next() (token, bool) {
	for {
		t.rest = strings.TrimLeft(t.rest, " \t\r\n")
		if !strings.HasPrefix(t.rest, "#") {
			break
		}
		_, after, found := strings.Cut(t.rest, "\n")
		if !found {
			return token{}, false
		}
		t.rest = after
	}
	switch {
	case t.rest == "":
		return token{}, false
	case strings.IndexByte("{};", t.rest[0]) >= 0:
		text := t.rest[:1]
		t.rest = t.rest[1:]
		return token{text: text}, true
	case t.rest[0] == '"':
		return t.quoted()
	}
	end := strings.IndexAny(t.rest, " \t\r\n{};\"")
	if end < 0 {
		return token{}, false // there may be more of it
	}
	text := t.rest[:end]
	t.rest = t.rest[end:]
	return token{text: text}, true
}

// quoted reads a string, in which \ooo is an octet in octal.
func (t *tokens) quoted() (token, bool) {
	var b strings.Builder
	for i := 1; i < len(t.rest); i++ {
		switch c := t.rest[i]; {
		case c == '"':
			t.rest = t.rest[i+1:]
			return token{b.String(), true}, true
		case c == '\\' && i+3 < len(t.rest):
			if o, err := strconv.ParseUint(t.rest[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(o))
				i += 3
				continue
			}
			i++
			b.WriteByte(t.rest[i])
		case c == '\\':
			return token{}, false
		default:
			b.WriteByte(c)
		}
	}
	return token{}, false
}

// maxDepth is of braces in braces; a lease has two.
const maxDepth = 8

// statement returns the next whole one; false if there is none yet.
func (t *tokens) statement() (statement, bool) {
	before := t.rest
	s, end := t.read(0)
	if end != whole {
		t.rest = before
		return statement{}, false
	}
	return s, true
}

// How reading a statement ended.
type ending int

const (
	whole  ending = iota
	closed        // a brace closes the statements around it
	broken        // at the end of what is there
)

func (t *tokens) read(depth int) (s statement, end ending) {
	for {
		w, ok := t.next()
		switch {
		case !ok || depth > maxDepth:
			return s, broken
		case w.is(";"):
			return s, whole
		case w.is("}"):
			if depth == 0 {
				return statement{}, whole // a stray one, passed over
			}
			return s, closed
		case w.is("{"):
			for {
				inner, end := t.read(depth + 1)
				if end == broken {
					return s, broken
				}
				if end == closed {
					return s, whole
				}
				s.body = append(s.body, inner)
			}
		default:
			s.words = append(s.words, w)
		}
	}
}

// is reports whether s begins with words.
func (s *statement) is(words ...string) bool {
	if len(s.words) < len(words) {
		return false
	}
	for i, w := range words {
		if s.words[i].quoted || s.words[i].text != w {
			return false
		}
	}
	return true
}

// last returns the last word, which is the value of many a statement.
func (s *statement) last() token { return s.words[len(s.words)-1] }

// value returns the octets of the last word, a string or hexadecimal.
func (s *statement) value() string {
	w := s.last()
	if w.quoted {
		return w.text
	}
	o, err := octets(w.text)
	if err != nil {
		return ""
	}
	return o
}

var errDeclaration = errors.New("a lease is declared for no address")

// declaration tells of the leases of one at the top of a file. Those of other
// things are passed over.
func (s *statement) declaration(lease func(Lease)) error {
	switch {
	case s.is("lease"):
		if len(s.words) < 2 {
			return errDeclaration
		}
		a, err := netip.ParseAddr(s.words[1].text)
		if err != nil {
			return fmt.Errorf("lease: %w", err)
		}
		l := Lease{Prefix: netip.PrefixFrom(a, a.BitLen())}
		if err := l.read(s.body); err != nil {
			return fmt.Errorf("lease %s: %w", a, err)
		}
		lease(l)
	case s.is("ia-na"), s.is("ia-ta"), s.is("ia-pd"):
		if len(s.words) < 2 || len(s.words[1].text) < 5 {
			return fmt.Errorf("%s: an IAID and a DUID are expected", s.words[0].text)
		}
		return s.association(s.words[1].text, lease)
	}
	return nil
}

// association reads the leases of a DHCPv6 client: id is IAID, in the byte
// order of the server, and DUID.
func (s *statement) association(id string, lease func(Lease)) error {
	var start time.Time
	for _, b := range s.body {
		if b.is("cltt") {
			var err error
			if start, err = b.time(); err != nil {
				return err
			}
		}
	}
	for _, b := range s.body {
		var p netip.Prefix
		var err error
		switch {
		case len(b.words) < 2:
			continue
		case b.is("iaaddr"):
			var a netip.Addr
			a, err = netip.ParseAddr(b.words[1].text)
			p = netip.PrefixFrom(a, a.BitLen())
		case b.is("iaprefix"):
			p, err = netip.ParsePrefix(b.words[1].text)
			p = p.Masked()
		default:
			continue
		}
		l := Lease{Prefix: p, Start: start, IAID: binary.LittleEndian.Uint32([]byte(id)), DUID: id[4:]}
		if err == nil {
			err = l.read(b.body)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", b.words[1].text, err)
		}
		lease(l)
	}
	return nil
}

// read reads what stands in the braces of a lease.
func (l *Lease) read(body []statement) error {
	var started time.Time
	for _, s := range body {
		var err error
		switch {
		case s.is("starts"):
			started, err = s.time()
		case s.is("cltt"):
			l.Start, err = s.time()
		case s.is("ends"):
			l.End, err = s.time()
		case s.is("binding", "state"):
			l.Active = s.last().text == "active"
		case s.is("hardware"):
			l.HWAddress = strings.ToLower(s.last().text)
		case s.is("uid"):
			l.ClientID = s.value()
		case s.is("client-hostname"):
			l.Hostname = s.last().text
		case s.is("option", "agent.circuit-id"):
			l.CircuitID = s.value()
		case s.is("option", "agent.remote-id"):
			l.RemoteID = s.value()
		}
		if err != nil {
			return err
		}
	}
	if l.Start.IsZero() {
		l.Start = started
	}
	if l.Start.IsZero() {
		return errors.New("it has neither starts nor cltt")
	}
	return nil
}

// time reads "4 2026/11/22 05:00:00", which is in UTC, "epoch 1795323600", or
// "never", the zero time.
func (s *statement) time() (time.Time, error) {
	w := s.words[1:]
	switch {
	case len(w) == 1 && w[0].text == "never":
		return time.Time{}, nil
	case len(w) == 2 && w[0].text == "epoch":
		n, err := strconv.ParseInt(w[1].text, 10, 40)
		return time.Unix(n, 0).UTC(), err
	case len(w) == 3:
		return time.Parse("2006/01/02 15:04:05", w[1].text+" "+w[2].text)
	}
	return time.Time{}, fmt.Errorf("%s: no time", s.words[0].text)
}
