package users

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// keys are the columns of a CSV file and the keys of a YAML file.
var keys = [...]string{"prefix", "user", "from", "until", "realm", "class", "multiSession", "vrf", "ports", "timeZone"}

const (
	keyPrefix = iota
	keyUser
	keyFrom
	keyUntil
	keyRealm
	keyClass
	keyMultiSession
	keyVRF
	keyPorts
	keyTimeZone
)

// knownKeys returns the keys for people.
func knownKeys() string {
	return strings.Join(keys[:len(keys)-1], ", ") + " and " + keys[len(keys)-1]
}

// A row is one binding as it stands in a file: a field for each of keys.
type row struct {
	line   int
	fields [len(keys)]field
}

type field struct {
	line, column int
	value        string
}

// A fileParser collects the bindings of one file and what is wrong with them.
type fileParser struct {
	file     string
	bindings []Binding
	lines    []int // of bindings
	warnings []Warning
	problems []Problem
	more     int
	names    map[string]string // realms, classes and the like, which repeat
}

func (p *fileParser) problem(problem Problem) {
	problem.File = p.file
	if len(p.problems) == MaxProblems {
		p.more++
		return
	}
	p.problems = append(p.problems, problem)
}

func (p *fileParser) warn(problem Problem) {
	problem.File = p.file
	if len(p.warnings) < MaxProblems {
		p.warnings = append(p.warnings, Warning{problem})
	}
}

// fieldProblem notes what is wrong with a field of r.
func (p *fileParser) fieldProblem(r *row, key int, text string) {
	f := r.fields[key]
	if f.line == 0 {
		f.line = r.line
	}
	p.problem(Problem{Line: f.line, Column: f.column, Key: keys[key], Value: f.value, Text: text})
}

// add adds the binding of r, or notes all that is wrong with it.
func (p *fileParser) add(r *row) {
	ok := true
	wrong := func(key int, text string) {
		ok = false
		p.fieldProblem(r, key, text)
	}
	b := Binding{
		User: strings.Clone(r.fields[keyUser].value), // not all of the line with it
		Options: Options{
			Realm:        p.name(r.fields[keyRealm].value),
			MultiSession: p.name(r.fields[keyMultiSession].value),
			Class:        p.name(r.fields[keyClass].value),
			TimeZone:     p.name(r.fields[keyTimeZone].value),
		},
		VRF: p.name(r.fields[keyVRF].value),
	}
	var err error
	if b.Prefix, err = parsePrefix(r.fields[keyPrefix].value); err != nil {
		wrong(keyPrefix, err.Error())
	}
	if b.User == "" {
		wrong(keyUser, errNoUser.Error())
	}
	if b.From, err = parseTime(r.fields[keyFrom].value); err != nil {
		wrong(keyFrom, err.Error())
	}
	if b.Until, err = parseTime(r.fields[keyUntil].value); err != nil {
		wrong(keyUntil, err.Error())
	}
	if ports := r.fields[keyPorts].value; ports != "" {
		if b.Ports, err = ParsePorts(ports); err != nil {
			wrong(keyPorts, err.Error())
		}
	}
	if !ok {
		return
	}
	b, key, err := b.normalize()
	if err != nil {
		wrong(slices.Index(keys[:], key), err.Error())
		return
	}
	p.bindings = append(p.bindings, b)
	p.lines = append(p.lines, r.line)
}

// name returns a copy of s, the same for equal ones.
func (p *fileParser) name(s string) string {
	if s == "" {
		return ""
	}
	n, ok := p.names[s]
	if !ok {
		n = strings.Clone(s)
		p.names[n] = n
	}
	return n
}

// parsePrefix reads a prefix or a single address.
func parsePrefix(s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, errNoPrefix
	}
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		switch {
		case err != nil:
			return netip.Prefix{}, errors.New("is no address: " + prefixExpected)
		case a.Zone() != "":
			return netip.Prefix{}, fmt.Errorf("has a zone, which means nothing beyond one host: write %s", a.WithZone(""))
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, errors.New("is no prefix: " + prefixExpected)
	}
	return p, nil
}

// parseTime reads an RFC 3339 time; "" is the zero time.
func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	switch {
	case err != nil:
		return t, errors.New("is no RFC 3339 time: write it like 2026-01-31T08:30:00+01:00, or leave it empty for ever")
	case t.UnixMilli() < 1 || t.UnixMilli() > maxTime:
		return t, errors.New("is outside of 1970 to 9999: leave it empty for ever")
	}
	return t, nil
}

// result returns what was collected, with the overlaps.
func (p *fileParser) result() ([]Binding, []Warning, error) {
	p.overlaps()
	if len(p.problems) == 0 {
		return p.bindings, p.warnings, nil
	}
	slices.SortStableFunc(p.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return nil, nil, &ParseError{File: p.file, Problems: p.problems, More: p.more}
}

// overlaps looks for bindings that hold one prefix at one time.
func (p *fileParser) overlaps() {
	order := make([]int, len(p.bindings))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		a, b := &p.bindings[i], &p.bindings[j]
		return cmp.Or(cmp.Compare(a.VRF, b.VRF), a.Prefix.Compare(b.Prefix), cmp.Compare(a.Ports, b.Ports), a.From.Compare(b.From), cmp.Compare(i, j))
	})
	reach := -1 // the one before that holds the prefix for longest
	for at, i := range order {
		b := &p.bindings[i]
		if r := max(reach, 0); reach < 0 || p.bindings[r].Prefix != b.Prefix || p.bindings[r].VRF != b.VRF || p.bindings[r].Ports != b.Ports {
			reach = i
			continue
		}
		before := order[at-1]
		switch a := &p.bindings[before]; {
		case a.From.Equal(b.From):
			p.sameStart(before, i)
		case p.outlasts(reach, b.From):
			p.warn(Problem{
				Line: p.lines[i], Key: keys[keyFrom], Value: b.From.Format(time.RFC3339Nano),
				Text: fmt.Sprintf("begins before line %d's binding of %s to %q ends: from then on %q counts",
					p.lines[reach], b.Prefix, p.bindings[reach].User, b.User),
			})
		}
		if p.outlasts(i, p.bindings[reach].Until) {
			reach = i
		}
	}
}

// outlasts reports whether binding i ends after a moment, which isn't zero
// unless it means for ever.
func (p *fileParser) outlasts(i int, moment time.Time) bool {
	until := p.bindings[i].Until
	return until.IsZero() || !moment.IsZero() && until.After(moment)
}

// sameStart notes that bindings i and j, in the order of their lines, hold the
// same prefix from the same moment.
func (p *fileParser) sameStart(i, j int) {
	a, b := &p.bindings[i], &p.bindings[j]
	if *a == *b {
		p.warn(Problem{Line: p.lines[j], Text: fmt.Sprintf("repeats line %d: one of them can go", p.lines[i])})
		return
	}
	since := "has no from"
	if !b.From.IsZero() {
		since = "begins at " + b.From.Format(time.RFC3339Nano)
	}
	p.problem(Problem{
		Line: p.lines[j], Key: keys[keyPrefix], Value: b.Prefix.String(),
		Text: fmt.Sprintf("%s, as in line %d, but the lines differ: delete one or give it another from", since, p.lines[i]),
	})
}
