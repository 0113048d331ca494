package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// A format is how a listing is printed.
type format string

// formatFlag adds -o to a command that lists something.
func formatFlag(cmd *cobra.Command) *format {
	f := format("table")
	cmd.Flags().VarP(&f, "output", "o", "how to print: table, json or csv")
	return &f
}

func (f *format) String() string { return string(*f) }

// Type is the flag's type in help texts.
func (f *format) Type() string { return "FORMAT" }

// Set refuses what is not a format.
func (f *format) Set(s string) error {
	switch s {
	case "table", "json", "csv":
		*f = format(s)
		return nil
	}
	return fmt.Errorf("%q is not one of table, json, csv", s)
}

// A table is a listing. Its JSON form is value, which has more detail than
// the rows where that helps.
type table struct {
	columns []string
	rows    [][]string
	value   any
}

func (t *table) add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = fmt.Sprint(c)
	}
	t.rows = append(t.rows, row)
}

// print writes the listing to w: for people, as one JSON value, or as CSV
// with a header.
func (t *table) print(w io.Writer, f format) error {
	switch f {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(t.value)
	case "csv":
		c := csv.NewWriter(w)
		c.Write(t.columns) //nolint:errcheck // Flush keeps the error
		c.WriteAll(t.rows) //nolint:errcheck // likewise
		return c.Error()
	default:
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		upper := make([]string, len(t.columns))
		for i, c := range t.columns {
			upper[i] = strings.ToUpper(strings.ReplaceAll(c, "_", " "))
		}
		fmt.Fprintln(tw, strings.Join(upper, "\t"))
		for _, row := range t.rows {
			cells := make([]string, len(row))
			for i, c := range row {
				cells[i] = printable(c)
			}
			fmt.Fprintln(tw, strings.Join(cells, "\t"))
		}
		return tw.Flush()
	}
}

// printable returns s with what could move the cursor or break the columns
// escaped: names and reasons come from exporters and peers.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 && utf8.ValidString(s) {
		return s
	}
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}
