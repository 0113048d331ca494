package entry

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/cmd/tollbridge/internal/flowtext"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/ipfix"
	"tollbridge/ipfix/file"
)

// A View is an entry of the journal.
type View struct {
	Position uint64          `json:"journal_position"`
	Kind     string          `json:"kind"`
	Time     time.Time       `json:"time"`
	From     string          `json:"from"`              // "journal", or the archive's directory
	Session  uint64          `json:"session,omitempty"` // position of the Transport Session's beginning
	Stream   uint16          `json:"stream,omitempty"`
	Octets   int             `json:"octets"`
	Begins   *Session        `json:"begins,omitempty"`
	Command  json.RawMessage `json:"command,omitempty"`
	Bindings *Bindings       `json:"bindings,omitempty"`
	Settings json.RawMessage `json:"settings,omitempty"` // of the pipeline from here on
	Messages []Message       `json:"messages,omitempty"` // the first is the entry's; others were passed on in it
}

// A Session is a Transport Session.
type Session struct {
	Exporter  string `json:"exporter"`
	Transport string `json:"transport"`
	Remote    string `json:"remote"`
	Local     string `json:"local"`
}

func viewSession(i asm.SessionInfo) *Session {
	return &Session{i.Exporter, i.Transport.String(), i.Remote.String(), i.Local.String()}
}

func (s *Session) String() string {
	return fmt.Sprintf("%s, %s from %s to %s", s.Exporter, s.Transport, s.Remote, s.Local)
}

// Bindings are what a source told of its user bindings: an event of one
// session, or all of them.
type Bindings struct {
	Source   string         `json:"source"`
	Event    string         `json:"event,omitempty"` // of a session; "" for a list, which replaces the one before
	Session  string         `json:"session,omitempty"`
	NAS      string         `json:"nas,omitempty"`
	User     string         `json:"user,omitempty"`
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
	At       time.Time      `json:"at,omitzero"`
	Listed   int            `json:"listed,omitempty"`
}

func (b *Bindings) String() string {
	if b.Event == "" {
		return fmt.Sprintf("%d of %s", b.Listed, b.Source)
	}
	return strings.TrimSpace(fmt.Sprintf("%s by %s at %s: session %q, NAS %q, user %q %v", b.Event, b.Source, listing.Time(b.At), b.Session, b.NAS, b.User, b.Prefixes))
}

// viewBindings returns nil for an entry that can't be read.
func viewBindings(e acct.Entry) *Bindings {
	if e.Kind == acct.EntryUsers {
		source, list, err := users.ParseList(e.Data)
		if err != nil {
			return nil
		}
		return &Bindings{Source: source, Listed: len(list)}
	}
	x, err := users.ParseEvent(e.Data)
	if err != nil {
		return nil
	}
	return &Bindings{Source: x.Source, Event: x.Kind.String(), Session: x.ID, NAS: x.NAS, User: x.User, Prefixes: x.Prefixes, At: x.At}
}

func viewEntry(e acct.Entry, from string) *View {
	v := &View{Position: e.Position, Kind: e.Kind.String(), Time: time.Unix(0, e.Time).UTC(), From: from, Octets: len(e.Data)}
	v.Session, v.Stream = e.Stream()
	switch e.Kind {
	case acct.EntryOpen:
		if i, err := asm.ParseSessionInfo(e.Data); err == nil {
			v.Begins = viewSession(i)
		}
	case acct.EntryUsers, acct.EntryBinding:
		v.Bindings = viewBindings(e)
	case acct.EntryConfig:
		if json.Valid(e.Data) {
			v.Settings = e.Data
		}
	case acct.EntryCommand:
		if json.Valid(e.Data) {
			v.Command = e.Data
		}
	}
	return v
}

// Table is a row for each thing that there is to say.
func (v *View) Table() listing.Table {
	t := listing.Table{Columns: []string{"what", "value"}, Value: v}
	t.Add("journal_position", v.Position)
	t.Add("kind", v.Kind)
	t.Add("time", listing.Time(v.Time))
	t.Add("from", v.From)
	if v.Session != 0 {
		t.Add("session", fmt.Sprintf("began at journal position %d", v.Session))
	}
	if v.Stream != 0 {
		t.Add("stream", v.Stream)
	}
	t.Add("octets", v.Octets)
	if v.Begins != nil {
		t.Add("begins", v.Begins)
	}
	if v.Bindings != nil {
		t.Add("bindings", v.Bindings)
	}
	if v.Settings != nil {
		t.Add("settings", string(v.Settings))
	}
	if v.Command != nil {
		t.Add("command", string(v.Command))
	}
	for i := range v.Messages {
		v.Messages[i].add(&t)
	}
	return t
}

// A Message is an IPFIX Message with all that is in it.
type Message struct {
	Session    *Session `json:"session,omitempty"`
	Octets     int      `json:"octets"`
	Domain     uint32   `json:"domain"`
	Sequence   uint32   `json:"sequence"`
	ExportTime string   `json:"export_time"`
	Fault      string   `json:"fault,omitempty"` // why it can't be read
	Sets       []Set    `json:"sets"`
}

// A Set is a Set of a Message.
type Set struct {
	ID        uint16            `json:"id"`
	Templates []Template        `json:"templates,omitempty"`
	Unknown   bool              `json:"template_unknown,omitempty"` // so its records can't be told apart
	Octets    int               `json:"octets,omitempty"`           // of what is not told apart
	Options   bool              `json:"options,omitempty"`
	Records   []json.RawMessage `json:"records,omitempty"`

	text []string // of Records
}

// A Template is a Template Record.
type Template struct {
	ID      uint16 `json:"id"`
	Options bool   `json:"options,omitempty"`
	Fields  int    `json:"fields"` // 0 withdraws it
}

func (m *Message) add(t *listing.Table) {
	if m.Session != nil {
		t.Add("exporter", m.Session)
	}
	t.Add("message", fmt.Sprintf("%d octets, domain %d, sequence %d, exported %s", m.Octets, m.Domain, m.Sequence, m.ExportTime))
	if m.Fault != "" {
		t.Add("can't be read", m.Fault)
	}
	for _, s := range m.Sets {
		for _, x := range s.Templates {
			what := "template"
			if x.Options {
				what = "options template"
			}
			if x.Fields == 0 {
				t.Add(what, fmt.Sprintf("%d withdrawn", x.ID))
			} else {
				t.Add(what, fmt.Sprintf("%d of %d fields", x.ID, x.Fields))
			}
		}
		switch {
		case s.Unknown:
			t.Add("data set", fmt.Sprintf("%d of %d octets: its template is not known here: it comes later, or came before what is kept", s.ID, s.Octets))
		case s.Options:
			t.Add("options data set", fmt.Sprintf("%d, records: %d", s.ID, len(s.Records)))
		case s.Templates == nil:
			t.Add("data set", fmt.Sprintf("%d, records: %d", s.ID, len(s.Records)))
		}
		for i, text := range s.text {
			t.Add(fmt.Sprintf("record %d", i+1), text)
		}
	}
}

// templateSets returns the Template Sets of a Message.
func templateSets(msg []byte) (sets []file.Set) {
	for s := range file.Sets(msg) {
		if len(s.Records) > 0 {
			sets = append(sets, s)
		}
	}
	return sets
}

func viewTemplates(s file.Set) Set {
	v := Set{ID: s.ID}
	for _, r := range s.Records {
		v.Templates = append(v.Templates, Template{ID: r.ID, Options: r.Options, Fields: r.Fields})
	}
	return v
}

func viewData(p *flowtext.Printer, s ipfix.DataSet) Set {
	p.SetDomain(s.Header.Domain)
	v := Set{ID: s.ID}
	if s.Template == nil {
		v.Unknown, v.Octets = true, len(s.Octets())
		return v
	}
	v.Options = s.Template.Scope > 0
	for r, ok := s.Next(); ok; r, ok = s.Next() {
		v.Records = append(v.Records, p.AppendJSON(nil, s.Template, r))
		v.text = append(v.text, strings.TrimPrefix(string(p.AppendText(nil, s.Template, r)), " "))
	}
	return v
}
