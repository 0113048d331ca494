package spoolcmd

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/cmd/tollbridge/internal/state"
	"tollbridge/dict/avp"
	"tollbridge/spool"
)

// A Record is an accounting record as listings show it.
type Record struct {
	ID        uint64    `json:"id"`
	State     string    `json:"state"`
	SessionID string    `json:"session_id"`
	Number    uint32    `json:"number"`
	Type      string    `json:"type"`
	User      string    `json:"user"`
	Realm     string    `json:"realm"`
	Event     time.Time `json:"event"`
	acct.Usage
	Corrects  *acct.Correction `json:"corrects,omitempty"`
	Increment acct.Count       `json:"increment"`
	Result    uint32           `json:"result,omitempty"`
	Peer      string           `json:"peer,omitempty"`
	Reason    string           `json:"reason,omitempty"`
}

func viewOf(l spool.Listed) Record {
	r := &l.Record
	return Record{
		ID: l.ID, State: l.State.String(), SessionID: r.SessionID, Number: r.Number, Type: r.Type.String(),
		User: r.User, Realm: r.Realm, Event: r.Event, Usage: r.Usage, Corrects: r.Corrects, Increment: r.Increment(),
		Result: l.Result, Peer: l.Peer, Reason: l.Reason,
	}
}

func newList(where *state.Flags) *cobra.Command {
	var filter spool.Filter
	var status string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List accounting records and what became of them",
		Example: `  tollbridge spool ls --state pending
  tollbridge spool ls --user alice -o json`,
	}
	flags := cmd.Flags()
	flags.StringVar(&status, "state", "", "only records that are pending, acknowledged, quarantined or covered")
	flags.StringVar(&filter.User, "user", "", "only records of this user")
	flags.StringVar(&filter.Session, "session", "", "only records of this Session-Id or Acct-Multi-Session-Id")
	listing.AddPage(cmd, "records", &filter.After, &filter.Limit)
	return where.List(cmd, func(ctx context.Context, s *spool.Spool) (listing.Table, error) {
		if status != "" {
			s, err := deliveryState(status)
			if err != nil {
				return listing.Table{}, err
			}
			filter.State = &s
		}
		list, err := s.List(ctx, filter)
		if err != nil {
			return listing.Table{}, err
		}
		views := make([]Record, len(list))
		t := listing.Table{
			Columns: []string{"id", "state", "type", "number", "user", "input_octets", "output_octets", "input_packets", "output_packets", "event", "session_id", "realm", "result"},
			Value:   views,
		}
		for i, l := range list {
			v := viewOf(l)
			views[i] = v
			t.Add(v.ID, v.State, listing.RecordType(v.Type, v.Corrects), v.Number, v.User, v.InputOctets, v.OutputOctets, v.InputPackets, v.OutputPackets, listing.Time(v.Event), v.SessionID, v.Realm, listing.BlankZero(v.Result))
		}
		return t, nil
	})
}

func deliveryState(name string) (acct.DeliveryState, error) {
	var names []string
	for s := acct.Pending; s <= acct.Covered; s++ {
		if s.String() == name {
			return s, nil
		}
		names = append(names, s.String())
	}
	return 0, fmt.Errorf("--state %s: is not one of %s", name, strings.Join(names, ", "))
}

func newShow(where *state.Flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show {ID | SESSION-ID NUMBER}",
		Short: "Show one accounting record whole: content, shares of the ledger, and fate",
		Example: `  tollbridge spool show 17
  tollbridge spool show 'bridge.isp.example;1763776800;1' 3 -o json`,
		Args: cobra.RangeArgs(1, 2),
	}
	out := listing.FormatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		number := args[len(args)-1]
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number: give an ID from \"spool ls\", or a Session-Id and a record number", number)
		}
		s, err := where.Open()
		if err != nil {
			return err
		}
		defer s.Close()
		var found []spool.Listed
		if len(args) == 1 {
			var l spool.Listed
			l, err = s.Show(cmd.Context(), n)
			found = append(found, l)
		} else {
			found, err = s.ShowNumber(cmd.Context(), args[0], uint32(n))
		}
		if err != nil {
			return err
		}
		views := make([]Detail, len(found))
		t := listing.Table{Columns: []string{"what", "value"}, Value: views}
		for i, l := range found {
			views[i] = detailOf(l)
			addRecord(&t, l)
		}
		return t.Print(cmd.OutOrStdout(), *out)
	}
	return cmd
}

// A Detail is all of an accounting record.
type Detail struct {
	Record
	MultiSessionID string            `json:"multi_session_id,omitempty"`
	Framed         netip.Prefix      `json:"framed,omitzero"`
	Source         string            `json:"source,omitempty"` // of the user's binding
	NAS            string            `json:"nas,omitempty"`    // that told it
	Start          time.Time         `json:"interval_start"`
	End            time.Time         `json:"interval_end"`
	SessionTime    float64           `json:"session_time"` // seconds
	Estimated      bool              `json:"estimated"`
	Classes        []acct.ClassUsage `json:"classes,omitempty"`
	Part           uint16            `json:"part,omitempty"`
	Parts          uint16            `json:"parts,omitempty"`
	Flow           []byte            `json:"flow,omitempty"` // AVPs
	Shares         []Share           `json:"shares,omitempty"`
	EndToEnd       uint32            `json:"end_to_end"`
	MaySent        bool              `json:"may_have_been_sent"`
	Attempts       uint32            `json:"error_answers"`
	At             time.Time         `json:"answered,omitzero"`
}

// A Share is what a row of the ledger has in a record.
type Share struct {
	Exporter string    `json:"exporter"`
	Domain   uint32    `json:"domain"`
	Interval time.Time `json:"interval"`
	acct.Count
}

func detailOf(l spool.Listed) Detail {
	r := &l.Record
	v := Detail{
		Record: viewOf(l), MultiSessionID: r.MultiSessionID, Framed: r.Framed, Source: r.Source, NAS: r.NAS,
		Start: r.Start, End: r.End, SessionTime: r.SessionTime.Seconds(), Estimated: r.Estimated,
		Classes: r.Classes, Part: r.Part, Parts: r.Parts, Flow: r.Flow,
		EndToEnd: l.EndToEnd, MaySent: l.MaySent, Attempts: l.Attempts, At: l.At,
	}
	for _, s := range r.Shares {
		v.Shares = append(v.Shares, Share{s.Exporter, s.Domain, listing.UnixTime(s.Interval), s.Count})
	}
	return v
}

// addRecord adds all of a record to t, a row for each thing there is to say.
func addRecord(t *listing.Table, l spool.Listed) {
	r := &l.Record
	t.Add("id", l.ID)
	t.Add("state", l.State)
	t.Add("session_id", r.SessionID)
	t.Add("multi_session_id", r.MultiSessionID)
	t.Add("type", listing.RecordType(r.Type.String(), r.Corrects))
	t.Add("number", r.Number)
	t.Add("user", r.User)
	if c := r.Corrects; c != nil {
		t.Add("corrects", fmt.Sprintf("%s/%d: %s", c.SessionID, c.Number, c.Reason))
	}
	t.Add("realm", r.Realm)
	if r.Framed.IsValid() {
		t.Add("framed", r.Framed)
	}
	if r.Source != "" {
		t.Add("told_by", strings.TrimSuffix(r.Source+", "+r.NAS, ", "))
	}
	t.Add("interval", listing.Time(r.Start)+" to "+listing.Time(r.End))
	t.Add("event", listing.Time(r.Event))
	t.Add("session_time", r.SessionTime)
	t.Add("input", listing.Usage(r.Usage.InputOctets, r.Usage.InputPackets))
	t.Add("output", listing.Usage(r.Usage.OutputOctets, r.Usage.OutputPackets))
	for _, c := range r.Classes {
		t.Add("class "+c.Class, "input "+listing.Usage(c.InputOctets, c.InputPackets)+", output "+listing.Usage(c.OutputOctets, c.OutputPackets))
	}
	if r.Parts > 0 {
		t.Add("part", fmt.Sprintf("%d of %d", r.Part, r.Parts))
	}
	if len(r.Flow) > 0 {
		t.Add("flow", fmt.Sprintf("%d octets of AVPs", len(r.Flow)))
	}
	for _, s := range r.Shares {
		t.Add("from "+s.Exporter, fmt.Sprintf("domain %d, arrived from %s: %d records, %d octets, %d packets",
			s.Domain, listing.Time(time.Unix(s.Interval, 0)), s.Records, s.Octets, s.Packets))
	}
	t.Add("end_to_end", fmt.Sprintf("%#08x", l.EndToEnd))
	t.Add("may_have_been_sent", l.MaySent)
	t.Add("error_answers", l.Attempts)
	if l.Result != 0 || l.Peer != "" {
		t.Add("answer", fmt.Sprintf("%s by %s at %s", resultText(l.Result), l.Peer, listing.Time(l.At)))
	}
	if l.Reason != "" {
		t.Add("reason", l.Reason)
	}
}

// resultText is a Result-Code with its name, where it has one.
func resultText(code uint32) string {
	if name := avp.ResultName(code); name != "" {
		return fmt.Sprintf("%d %s", code, name)
	}
	return strconv.FormatUint(uint64(code), 10)
}
