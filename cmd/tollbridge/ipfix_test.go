package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

const corpusDir = "../../../shared/corpus"

// corpusIndex returns the rows of the corpus's index, or skips the test.
func corpusIndex(t *testing.T) [][]string {
	t.Helper()
	f, err := os.Open(filepath.Join(corpusDir, "INDEX.csv"))
	if err != nil {
		t.Skip("skipped: the corpus of captures is not here (", corpusDir, ")")
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows[1:]
}

// runIPFIX runs an ipfix command, and returns what it prints.
func runIPFIX(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	root := newRoot()
	root.SetArgs(append([]string{"ipfix"}, args...))
	root.SetOut(&out)
	root.SetErr(&errs)
	err = root.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

// corpusExceptions are files of which we count other than the index, and why.
var corpusExceptions = map[string]messageCounts{
	// Malformed messages are discarded whole (RFC 7011, Section 9.1), where the
	// index counts parts of them.
	"bad-length-in-set.ipfix":        {Messages: 1, Errors: map[string]uint64{"truncated": 1}},
	"bad-template-field-count.ipfix": {Messages: 1, Errors: map[string]uint64{"length": 1}},
	"enterprise-from-nfv9.ipfix":     {Messages: 10, Errors: map[string]uint64{"scope": 1}}, // an Options Template without scope
	"header-and-zeros.ipfix":         {Messages: 1, Errors: map[string]uint64{"length": 1}},
	"netflow5_test_invalid01.dat":    {Messages: 1, Errors: map[string]uint64{"length": 1}}, // says it has 55,582 records

	// Two packets end to end, of which the index saw the first.
	"netflow-v9-1.dat": {Messages: 2, Templates: 2, DataRecords: 6},
}

// Every file of the corpus counts as its index says, without errors.
func TestIPFIXDumpStatsCorpus(t *testing.T) {
	for _, row := range corpusIndex(t) {
		name := filepath.Join(corpusDir, row[0], row[1])
		t.Run(row[0]+"/"+row[1], func(t *testing.T) {
			want := messageCounts{Errors: map[string]uint64{}}
			for i, p := range []*uint64{&want.Messages, &want.Templates, &want.OptionsTemplates, &want.DataRecords,
				&want.OptionsRecords, &want.Withdrawals} {
				*p, _ = strconv.ParseUint(row[3+i], 10, 64)
			}
			if e, ok := corpusExceptions[row[1]]; ok {
				want = e
			}
			stdout, _, err := runIPFIX(t, "dump", "--stats", "-o", "json", name)
			if err != nil {
				t.Fatal(err)
			}
			var got messageCounts
			d := json.NewDecoder(bytes.NewReader([]byte(stdout)))
			d.DisallowUnknownFields()
			if err := d.Decode(&got); err != nil {
				t.Fatal(err)
			}
			gotErrors, wantErrors := got.Errors, want.Errors
			got.Errors, want.Errors = nil, nil
			if got.Messages != want.Messages || got.Templates != want.Templates || got.OptionsTemplates != want.OptionsTemplates ||
				got.DataRecords != want.DataRecords || got.OptionsRecords != want.OptionsRecords ||
				got.Withdrawals != want.Withdrawals || !maps.Equal(gotErrors, wantErrors) {
				t.Errorf("got  %+v %v\nwant %+v %v", got, gotErrors, want, wantErrors)
			}
		})
	}
}
