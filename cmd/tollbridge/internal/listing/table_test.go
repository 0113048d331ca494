package listing_test

import (
	"strings"
	"testing"

	"tollbridge/cmd/tollbridge/internal/listing"
)

// Names come from exporters, reasons from peers: neither may write to the
// terminal of whoever lists them, or pass for a column or a row.
func TestTableEscapesWhatIsNotPrintable(t *testing.T) {
	tab := listing.Table{Columns: []string{"user", "reason"}}
	tab.Add("al\tice\x1b[2J", "a\nb \xff é 用户")
	var b strings.Builder
	if err := tab.Print(&b, listing.ForPeople); err != nil {
		t.Fatal(err)
	}
	want := "USER                REASON\n" + `al\tice\x1b[2J` + "      " + `a\nb \xff é 用户` + "\n"
	if got := b.String(); strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") || strings.Count(got, "\n") != 2 {
		t.Errorf("printed\n%q, want\n%q", got, want)
	}
}
