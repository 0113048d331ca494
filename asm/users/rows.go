package users

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
)

// Rows collects bindings that stand in a table elsewhere, such as a database's:
// the columns are those of a CSV file, and so are the rules of ParseFile.
type Rows struct {
	parser  *fileParser
	columns []int // the key of each
	row     int
}

// NewRows begins a table of a name that errors begin with. Names of columns are
// known in any case, with or without underscores: multi_session is
// multiSession. What is wrong with them is a *ParseError.
func NewRows(name string, columns []string) (*Rows, error) {
	r := &Rows{parser: &fileParser{file: name, names: map[string]string{}}}
	plain := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "")) }
	for _, c := range columns {
		key := slices.IndexFunc(keys[:], func(k string) bool { return plain(k) == plain(c) })
		switch {
		case key < 0:
			r.parser.problem(Problem{Key: "column", Value: c, Text: "is unknown: a column may be " + knownKeys()})
		case slices.Contains(r.columns, key):
			r.parser.problem(Problem{Key: "column", Value: c, Text: "is there twice"})
		}
		r.columns = append(r.columns, key)
	}
	for _, key := range [...]int{keyPrefix, keyUser} {
		if !slices.Contains(r.columns, key) {
			r.parser.problem(Problem{Key: "column", Value: keys[key], Text: "is missing: columns named prefix and user are required"})
		}
	}
	if len(r.parser.problems) > 0 {
		_, _, err := r.parser.result()
		return nil, err
	}
	return r, nil
}

// Add adds a row: a value for each column, "" for none.
func (r *Rows) Add(values []string) {
	r.row++
	if len(values) != len(r.columns) {
		panic(fmt.Sprintf("users: internal error: %d values for %d columns", len(values), len(r.columns)))
	}
	b := row{line: r.row}
	for i, v := range values {
		b.fields[r.columns[i]] = field{line: r.row, value: strings.TrimSpace(v)}
	}
	r.parser.add(&b)
}

// Result returns the bindings in an order of their own, so that the same rows
// in another order have the same Digest. Lines of problems are rows, from 1.
func (r *Rows) Result() (File, error) {
	f := File{Name: r.parser.file}
	var err error
	if f.Bindings, f.Warnings, err = r.parser.result(); err != nil {
		return f, err
	}
	slices.SortFunc(f.Bindings, compareBindings)
	f.Digest = sha256.Sum256(AppendList(nil, "", f.Bindings))
	return f, nil
}
