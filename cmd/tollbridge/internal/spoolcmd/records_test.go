package spoolcmd

import (
	"strings"
	"testing"

	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/dict/avp"
	"tollbridge/spool"
)

// What a server answered is shown with the name that RFC 6733 gives it.
func TestAnswerHasItsName(t *testing.T) {
	for code, want := range map[uint32]string{
		avp.ResultInvalidAVPValue: "answer 5004 DIAMETER_INVALID_AVP_VALUE by aaa.example at",
		5999:                      "answer 5999 by aaa.example at",
	} {
		table := listing.Table{Columns: []string{"what", "value"}}
		addRecord(&table, spool.Listed{Result: code, Peer: "aaa.example"})
		var out strings.Builder
		if err := table.Print(&out, listing.ForPeople); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(strings.Fields(out.String()), " "); !strings.Contains(got, want) {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}
