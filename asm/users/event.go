package users

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// An EventKind says what became of a user session. The numbers are stored.
type EventKind uint8

const (
	Begin  EventKind = 1 // it began
	Update EventKind = 2 // it goes on, perhaps with other addresses
	End    EventKind = 3 // it ended
	EndAll EventKind = 4 // a NAS restarted: all of its sessions ended
)

func (k EventKind) String() string {
	switch k {
	case Begin:
		return "begin"
	case Update:
		return "update"
	case End:
		return "end"
	case EndAll:
		return "end all"
	}
	return fmt.Sprintf("EventKind(%d)", uint8(k))
}

// An Event is what a source, such as a RADIUS or a DHCP server, says of one
// user session at one moment. Events may come late, twice, out of order, or
// not at all: Table.Apply says what comes of that.
type Event struct {
	Source string // its name, as lists have it too; required
	Kind   EventKind
	ID     string    // the source's own key of the session, such as NAS and Acct-Session-Id; required but for EndAll
	NAS    string    // who holds the session; an EndAll ends those of the same Source and NAS
	At     time.Time // when it happened, by the source's clock; required, whole milliseconds

	// Since is when the session began, if the source knows: At less the
	// Acct-Session-Time. It counts for an Update or End of a session whose
	// Begin was lost. Zero is unknown.
	Since time.Time

	// Prefixes are all that the session holds from At on: its IPv4 address, a
	// framed and a delegated IPv6 prefix. None in an Update or End means
	// those that it held before.
	Prefixes []netip.Prefix
	VRF      string // the address space that the Prefixes are of; "" is the global one
	User     string // User-Name; "" in an Update or End is that of before

	// Timeout ends the session by itself when no Event of it has come for so
	// long after At: its End may have been lost. Zero is never.
	Timeout time.Duration

	Options // a Begin's or Update's replace those of before, if any is set
}

// A Sink takes the Events of sources.
type Sink interface {
	// Put returns when e is durable and will be applied: only then may the
	// source be answered. An Event that isn't valid is refused.
	Put(ctx context.Context, e Event) error
}

// maxPrefixes bounds the Prefixes of one session.
const maxPrefixes = 64

// maxTimeout keeps times within what is encoded.
const maxTimeout = 10 * 365 * 24 * time.Hour

// Normalize returns e as it is journaled, or says what is wrong with it.
// Prefixes come in order, each once, with their host bits cleared.
func (e Event) Normalize() (Event, error) {
	bad := func(key string, err error) (Event, error) {
		return e, fmt.Errorf("users: %v of session %q: %s %w", e.Kind, e.ID, key, err)
	}
	if e.Kind < Begin || e.Kind > EndAll {
		return bad("kind", errors.New("is unknown"))
	}
	for _, required := range [...]struct {
		key  string
		miss bool
	}{
		{"source", e.Source == ""}, {"at", e.At.IsZero()},
		{"id", e.ID == "" && e.Kind != EndAll},
		{"nas", e.NAS == "" && e.Kind == EndAll},
		{"user", e.User == "" && e.Kind == Begin},
		{"prefixes", len(e.Prefixes) == 0 && e.Kind == Begin},
	} {
		if required.miss {
			return bad(required.key, errors.New("is missing"))
		}
	}
	for _, name := range [...]struct{ key, value string }{
		{"source", e.Source}, {"nas", e.NAS}, {"user", e.User}, {"vrf", e.VRF},
	} {
		if err := CheckName(name.value); err != nil {
			return bad(name.key, err)
		}
	}
	if len(e.ID) > MaxName {
		return bad("id", fmt.Errorf("has %d octets: at most %d are allowed", len(e.ID), MaxName))
	}
	if key, err := e.Options.check(); err != nil {
		return bad(key, err)
	}
	if len(e.Prefixes) > maxPrefixes {
		return bad("prefixes", fmt.Errorf("are %d: at most %d are allowed", len(e.Prefixes), maxPrefixes))
	}
	if e.Timeout < 0 || e.Timeout > maxTimeout {
		return bad("timeout", fmt.Errorf("is %v: at most %v is allowed", e.Timeout, maxTimeout))
	}
	prefixes := make([]netip.Prefix, 0, len(e.Prefixes))
	for _, p := range e.Prefixes {
		if p.IsValid() {
			p = p.Masked() // a Framed-IPv6-Prefix may have host bits (RFC 3162, Section 2.3)
		}
		p, err := normalizePrefix(p)
		if err != nil {
			return bad("prefix", err)
		}
		prefixes = append(prefixes, p)
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	if prefixes = slices.Compact(prefixes); len(prefixes) == 0 {
		prefixes = nil
	}
	e.Prefixes = prefixes
	e.At, e.Since = fromMilli(max(toMilli(e.At), 1)), fromMilli(toMilli(e.Since))
	if !e.Since.IsZero() && e.Since.After(e.At) {
		e.Since = e.At
	}
	e.Timeout = e.Timeout.Round(time.Millisecond)
	return e, nil
}

// eventVersion is the first octet of an encoded Event.
const eventVersion = 1

// AppendBinary appends the data of an acct.EntryBinding, which ParseEvent
// reads: e must be normal.
func (e Event) AppendBinary(b []byte) []byte {
	b = append(b, eventVersion, byte(e.Kind))
	for _, s := range [...]string{e.Source, e.ID, e.NAS, e.VRF, e.User} {
		b = appendString(b, s)
	}
	b = binary.AppendUvarint(b, uint64(toMilli(e.At)))
	b = binary.AppendUvarint(b, uint64(toMilli(e.Since)))
	b = binary.AppendUvarint(b, uint64(e.Timeout.Milliseconds()))
	b = binary.AppendUvarint(b, uint64(len(e.Prefixes)))
	for _, p := range e.Prefixes {
		b = appendPrefix(b, p)
	}
	return appendOptions(b, e.Options)
}

// ParseEvent reads what AppendBinary appended. Errors match ErrCorrupt.
func ParseEvent(data []byte) (Event, error) {
	d := decoder{rest: string(data)}
	if v := d.octet(); v != eventVersion && !d.failed {
		return Event{}, fmt.Errorf("users: decode event of version %d: %w", v, ErrCorrupt)
	}
	e := Event{Kind: EventKind(d.octet())}
	for _, s := range [...]*string{&e.Source, &e.ID, &e.NAS, &e.VRF, &e.User} {
		*s = d.string()
	}
	e.At, e.Since = fromMilli(d.milli()), fromMilli(d.milli())
	if ms := d.uvarint(); ms > uint64(maxTimeout/time.Millisecond) {
		d.fail()
	} else {
		e.Timeout = time.Duration(ms) * time.Millisecond
	}
	n := d.uvarint()
	if n > maxPrefixes {
		d.fail()
	}
	for range n {
		if d.failed {
			break
		}
		e.Prefixes = append(e.Prefixes, d.prefix())
	}
	e.Options = d.options()
	if d.failed || d.rest != "" {
		return Event{}, fmt.Errorf("users: decode event: %w", ErrCorrupt)
	}
	normal, err := e.Normalize()
	if err != nil {
		return Event{}, fmt.Errorf("users: decode event: %w: %w", err, ErrCorrupt)
	}
	if !slices.Equal(normal.Prefixes, e.Prefixes) || !normal.Since.Equal(e.Since) {
		return Event{}, fmt.Errorf("users: decode event: it is not as encoded: %w", ErrCorrupt)
	}
	return normal, nil
}

// appendPrefix appends a length, with 128 added for IPv6 (up to 256, so as a
// uvarint), and an address.
func appendPrefix(b []byte, p netip.Prefix) []byte {
	n := uint64(p.Bits())
	if p.Addr().Is6() {
		n += 128
	}
	b = binary.AppendUvarint(b, n)
	return append(b, p.Addr().AsSlice()...)
}

func (d *decoder) prefix() netip.Prefix {
	n := d.uvarint()
	if n < 128 {
		var octets [4]byte
		copy(octets[:], d.octets(4))
		return netip.PrefixFrom(netip.AddrFrom4(octets), int(n))
	}
	var octets [16]byte
	copy(octets[:], d.octets(16))
	return netip.PrefixFrom(netip.AddrFrom16(octets), int(min(n-128, 255)))
}

// milli reads a time in Unix milliseconds, 0 for none.
func (d *decoder) milli() int64 {
	ms := d.uvarint()
	if ms > maxTime {
		d.fail()
		return 0
	}
	return int64(ms)
}

// optionsVersion is the first octet of encoded Options that are not empty.
const optionsVersion = 1

func appendOptions(b []byte, o Options) []byte {
	if o == (Options{}) {
		return append(b, 0)
	}
	b = append(b, optionsVersion)
	for _, s := range [...]string{o.Realm, o.MultiSession, o.Class, o.TimeZone, string(o.Ports), string(o.Attributes)} {
		b = appendString(b, s)
	}
	return b
}

func (d *decoder) options() (o Options) {
	switch d.octet() {
	case 0:
	case optionsVersion:
		for _, s := range [...]*string{&o.Realm, &o.MultiSession, &o.Class, &o.TimeZone, (*string)(&o.Ports), (*string)(&o.Attributes)} {
			*s = d.string()
		}
		if o == (Options{}) {
			d.fail()
		}
	default:
		d.fail()
	}
	return o
}
