// Package listing prints what commands list: as a table for people, as JSON, or
// as CSV (-o), whole or row by row, a page at a time.
package listing

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// A Format is how a listing is printed.
type Format string

// The formats.
const (
	ForPeople Format = "table"
	JSON      Format = "json"
	CSV       Format = "csv"
)

// FormatFlag adds -o to a command that lists something.
func FormatFlag(cmd *cobra.Command) *Format {
	f := ForPeople
	cmd.Flags().VarP(&f, "output", "o", "how to print: table, json or csv")
	return &f
}

// String implements pflag.Value.
func (f *Format) String() string { return string(*f) }

// Type is the flag's type in help texts.
func (f *Format) Type() string { return "FORMAT" }

// Set refuses what is not a format.
func (f *Format) Set(s string) error {
	switch v := Format(s); v {
	case ForPeople, JSON, CSV:
		*f = v
		return nil
	}
	return fmt.Errorf("%q is not one of table, json, csv", s)
}

// A Table is a listing. Its JSON form is Value, which has more detail than
// the rows where that helps.
type Table struct {
	Columns []string
	Value   any
	rows    [][]string
}

// Add adds a row.
func (t *Table) Add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = fmt.Sprint(c)
	}
	t.rows = append(t.rows, row)
}

// Print writes the listing to w: for people, as one JSON value, or as CSV
// with a header.
func (t *Table) Print(w io.Writer, f Format) error {
	if f == JSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(t.Value)
	}
	l := NewWriter(w, f, t.Columns, len(t.rows))
	for _, row := range t.rows {
		if err := l.Add(nil, row); err != nil {
			return err
		}
	}
	return l.End()
}
