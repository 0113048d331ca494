package dict

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

// A Kind is the set of AVPs that a Profile begins with. The words are stored.
type Kind string

const (
	Base   Kind = "base"   // base accounting (RFC 6733, Section 9) with our own AVPs
	NASREQ Kind = "nasreq" // the accounting of network access servers (RFC 7155, Section 3.9), with our own AVPs
	Rf     Kind = "rf"     // 3GPP offline charging (TS 32.299) with PS-Information
)

// An Identity is what becomes of a user's name. The words are stored.
type Identity string

const (
	KeepIdentity       Identity = "keep"       // User-Name as it is
	RemoveIdentity     Identity = "remove"     // none
	ChargeableIdentity Identity = "chargeable" // Chargeable-User-Identity (RFC 4372) alone, where the user's binding has one
	PseudonymIdentity  Identity = "pseudonym"  // User-Name is a keyed hash of the user's name
)

// A Profile says how accounting records are written for some partner. It is a
// value that can be stored as JSON and gives the same octets for the same
// record whenever it is read back.
type Profile struct {
	Name        string `json:"name,omitempty"` // for people
	Kind        Kind   `json:"kind"`           // "" means Base
	Application uint32 `json:"application,omitempty"`

	Events   bool `json:"events,omitempty"`   // every record is an EVENT_RECORD
	Interval bool `json:"interval,omitempty"` // volumes are those that the record adds, else cumulative; always so of Rf and Events

	ServiceContext string   `json:"service_context,omitempty"` // Service-Context-Id of Rf; "" means DefaultServiceContext
	Optional       []uint32 `json:"optional,omitempty"`        // as Options.Optional has it

	Edits    []Edit   `json:"edits,omitempty"`    // of the AVPs, one after the other
	Allow    []Ref    `json:"allow,omitempty"`    // what may be sent at all, beside the AVPs that a request can't do without; nil for everything
	Identity Identity `json:"identity,omitempty"` // "" means KeepIdentity
	Key      []byte   `json:"key,omitempty"`      // of pseudonyms: secret, at least 16 octets
}

// DefaultServiceContext is that of packet-switched charging (TS 32.251).
const DefaultServiceContext = "32251@3gpp.org"

// application returns the Acct-Application-Id.
func (p *Profile) application() uint32 {
	if p.Application != 0 {
		return p.Application
	}
	return avp.ApplicationAccounting
}

// OfInterval reports whether a record so written says what it adds alone, so
// that its answer says nothing of the records before.
func (p *Profile) OfInterval() bool { return p.Interval || p.Events || p.Kind == Rf }

// Applications returns the applications that a peer must serve.
func (p *Profile) Applications() []uint32 { return []uint32{p.application()} }

// Check reports what is wrong with p.
func (p *Profile) Check() error {
	switch p.Kind {
	case "", Base, NASREQ, Rf:
	default:
		return fmt.Errorf("dict: profile %s: kind %q is not one of base, nasreq, rf", p.Name, p.Kind)
	}
	switch {
	case p.Application == 0 || p.Application == avp.ApplicationAccounting:
	case p.Application == avp.ApplicationNASREQ && p.Kind == NASREQ:
	default:
		return fmt.Errorf("dict: profile %s: application %d: accounting is sent under 3, or under 1 where it is coupled to NASREQ (RFC 6733, Section 9.3)", p.Name, p.Application)
	}
	if p.ServiceContext != "" && p.Kind != Rf {
		return fmt.Errorf("dict: profile %s: a service context belongs to kind rf alone", p.Name)
	}
	switch p.Identity {
	case "", KeepIdentity, RemoveIdentity, ChargeableIdentity:
		if len(p.Key) > 0 {
			return fmt.Errorf("dict: profile %s: a key is of no use without pseudonyms", p.Name)
		}
	case PseudonymIdentity:
		if len(p.Key) < 16 {
			return fmt.Errorf("dict: profile %s: the key of pseudonyms has %d octets, wants at least 16", p.Name, len(p.Key))
		}
	default:
		return fmt.Errorf("dict: profile %s: identity %q is not one of keep, remove, chargeable, pseudonym", p.Name, p.Identity)
	}
	for i, e := range p.Edits {
		if err := e.check(); err != nil {
			return fmt.Errorf("dict: profile %s: edit %d: %w", p.Name, i+1, err)
		}
	}
	return nil
}

// A Writer writes records by a Profile. It is safe for use by many goroutines.
type Writer struct {
	d       *Dictionary
	p       Profile
	plain   bool // writes as AppendRecord does
	edited  bool
	allowed map[Ref]bool
}

// Writer returns what writes records by p.
func (d *Dictionary) Writer(p Profile) (*Writer, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	w := &Writer{d: d, p: p, edited: len(p.Edits) > 0 || p.Allow != nil}
	w.plain = !w.edited && (p.Kind == "" || p.Kind == Base) && !p.OfInterval() && (p.Identity == "" || p.Identity == KeepIdentity)
	if p.Allow != nil {
		w.allowed = map[Ref]bool{}
		for _, r := range append(slices.Clone(p.Allow), required...) {
			w.allowed[r] = true
		}
	}
	return w, nil
}

// Profile returns what w was made of.
func (w *Writer) Profile() *Profile { return &w.p }

// required are the AVPs that no list takes away: without them a request is
// none, or finds no server (RFC 6733, Sections 6.1 and 9.7.1).
var required = []Ref{
	{Code: avp.SessionID}, {Code: avp.OriginHost}, {Code: avp.OriginRealm}, {Code: avp.DestinationRealm}, {Code: avp.DestinationHost},
	{Code: avp.AccountingRecordType}, {Code: avp.AccountingRecordNumber}, {Code: avp.AcctApplicationID},
}

// Append appends the AVPs of the Accounting-Request that carries r, as
// AppendRecord does for the base profile. o.Application is the profile's.
func (w *Writer) Append(b []byte, r *acct.Record, o Options) []byte {
	p := &w.p
	o.Application = p.application()
	if len(o.Optional) == 0 {
		o.Optional = p.Optional
	} else if len(p.Optional) > 0 {
		o.Optional = slices.Concat(o.Optional, p.Optional)
	}
	if w.plain {
		return w.d.AppendRecord(b, r, o)
	}
	c := *r
	if p.Identity != "" && p.Identity != KeepIdentity {
		c.User = p.UserName(r.User)
		if p.Identity != ChargeableIdentity {
			c.Attributes = slices.DeleteFunc(slices.Clone(r.Attributes), func(a acct.Attribute) bool {
				return a.Vendor == 0 && a.Code == avp.ChargeableUserIdentity
			})
		}
	}
	if p.Events {
		c.Type = acct.Event
	}
	if p.OfInterval() && p.Kind != Rf {
		c.Usage, c.Classes = c.Increase, increases(r.Classes)
	}
	start := len(b)
	switch p.Kind {
	case Rf:
		b = w.d.appendRf(b, &c, o, p)
	case NASREQ:
		b = w.d.appendNASREQ(b, &c, o)
	default:
		b = w.d.AppendRecord(b, &c, o)
	}
	if !w.edited {
		return b
	}
	whole := slices.Clone(b[start:])
	return w.edit(b[:start], whole)
}

func increases(classes []acct.ClassUsage) []acct.ClassUsage {
	out := make([]acct.ClassUsage, len(classes))
	for i, c := range classes {
		out[i] = acct.ClassUsage{Class: c.Class, Usage: c.Increase, Increase: c.Increase}
	}
	return out
}

// UserName returns the User-Name of a user's records: the name, "" for none, or
// a pseudonym. That is the first 16 octets of HMAC-SHA-256 of the name under
// the Key, in hexadecimal.
func (p *Profile) UserName(user string) string {
	switch {
	case p.Identity == "" || p.Identity == KeepIdentity:
		return user
	case p.Identity != PseudonymIdentity || user == "":
		return ""
	}
	h := hmac.New(sha256.New, p.Key)
	h.Write([]byte(user))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// appendNASREQ appends an ACR of RFC 7155, Section 3.9. It is that of base
// accounting, with the M bits that the RFC sets, and an Acct-Session-Id and a
// NAS-Identifier, which servers that think in RADIUS sort records by.
func (d *Dictionary) appendNASREQ(b []byte, r *acct.Record, o Options) []byte {
	c := *r
	has := func(codes ...uint32) bool {
		return slices.ContainsFunc(r.Attributes, func(a acct.Attribute) bool { return a.Vendor == 0 && slices.Contains(codes, a.Code) })
	}
	if !has(avp.NASIdentifier, avp.NASIPAddress, avp.NASIPv6Address) {
		c.Attributes = append(slices.Clone(r.Attributes), acct.Attribute{Code: avp.NASIdentifier, Data: []byte(o.OriginHost)})
	}
	b = d.appendRecord(b, &c, o, true)
	b = avp.AppendString(b, avp.AcctSessionID, 0, o.flags(avp.AcctSessionID), r.SessionID)
	if !has(avp.ServiceType) {
		const framed = 2
		b = avp.AppendUint32(b, avp.ServiceType, 0, o.flags(avp.ServiceType), framed)
	}
	return b
}

// ErrNoAVP says that no AVP has a name, or no name of those that a profile may
// have.
var ErrNoAVP = errors.New("no such AVP")
