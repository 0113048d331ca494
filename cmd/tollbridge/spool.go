package main

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tollbridge/asm/acct"
	"tollbridge/spool"
)

func newSpool() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "spool",
		Short: "Look at what the spool holds: accounting records, sessions, suspense",
		Long: `Spool shows what a state directory holds, beside a running daemon or without
one: the accounting records and what became of them, the sessions that are
open, the flows in suspense, and how full it is.`,
	}
	state := addStateFlags(cmd)
	cmd.AddCommand(newSpoolList(state), newSpoolShow(state), newSpoolRequeue(state), newSpoolSessions(state), newSpoolSuspense(state), newSpoolRelease(state), newSpoolReject(state), newSpoolDecisions(state), newSpoolAdjust(state), newSpoolCDRs(state), newSpoolStats(state), newSpoolArchive(state), newSpoolTail(state), newSpoolExport(state), newSpoolVerify(state), newSpoolRestored(state), newSpoolJournal(state))
	return cmd
}

// A recordView is an accounting record as listings show it.
type recordView struct {
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

func viewOf(l spool.Listed) recordView {
	r := &l.Record
	return recordView{
		ID: l.ID, State: l.State.String(), SessionID: r.SessionID, Number: r.Number, Type: r.Type.String(),
		User: r.User, Realm: r.Realm, Event: r.Event, Usage: r.Usage, Corrects: r.Corrects, Increment: r.Increment(),
		Result: l.Result, Peer: l.Peer, Reason: l.Reason,
	}
}

// typeText names a record's type, with what a correction does.
func typeText(t string, c *acct.Correction) string {
	switch {
	case c == nil:
		return t
	case c.Credit:
		return t + " credit"
	}
	return t + " debit"
}

func newSpoolList(state *stateFlags) *cobra.Command {
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
	flags.Uint64Var(&filter.After, "after", 0, "only records with an ID above this")
	addLimit(cmd, &filter.Limit)
	return state.list(cmd, func(ctx context.Context, s *spool.Spool) (table, error) {
		if status != "" {
			s, err := deliveryState(status)
			if err != nil {
				return table{}, err
			}
			filter.State = &s
		}
		list, err := s.List(ctx, filter)
		if err != nil {
			return table{}, err
		}
		views := make([]recordView, len(list))
		t := table{
			columns: []string{"id", "state", "type", "number", "user", "input_octets", "output_octets", "input_packets", "output_packets", "event", "session_id", "realm", "result"},
			value:   views,
		}
		for i, l := range list {
			v := viewOf(l)
			views[i] = v
			t.add(v.ID, v.State, typeText(v.Type, v.Corrects), v.Number, v.User, v.InputOctets, v.OutputOctets, v.InputPackets, v.OutputPackets, timeText(v.Event), v.SessionID, v.Realm, blankZero(v.Result))
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

func newSpoolShow(state *stateFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show {ID | SESSION-ID NUMBER}",
		Short: "Show one accounting record whole: content, shares of the ledger, and fate",
		Example: `  tollbridge spool show 17
  tollbridge spool show 'bridge.isp.example;1763776800;1' 3 -o json`,
		Args: cobra.RangeArgs(1, 2),
	}
	out := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		number := args[len(args)-1]
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number: give an ID from \"spool ls\", or a Session-Id and a record number", number)
		}
		s, err := state.open()
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
		views := make([]detailView, len(found))
		t := table{columns: []string{"what", "value"}, value: views}
		for i, l := range found {
			views[i] = detailOf(l)
			addRecord(&t, l)
		}
		return t.print(cmd.OutOrStdout(), *out)
	}
	return cmd
}

// A detailView is all of an accounting record.
type detailView struct {
	recordView
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
	Shares         []shareView       `json:"shares,omitempty"`
	EndToEnd       uint32            `json:"end_to_end"`
	MaySent        bool              `json:"may_have_been_sent"`
	Attempts       uint32            `json:"error_answers"`
	At             time.Time         `json:"answered,omitzero"`
}

// A shareView is what a row of the ledger has in a record.
type shareView struct {
	Exporter string    `json:"exporter"`
	Domain   uint32    `json:"domain"`
	Interval time.Time `json:"interval"`
	acct.Count
}

func detailOf(l spool.Listed) detailView {
	r := &l.Record
	v := detailView{
		recordView: viewOf(l), MultiSessionID: r.MultiSessionID, Framed: r.Framed, Source: r.Source, NAS: r.NAS,
		Start: r.Start, End: r.End, SessionTime: r.SessionTime.Seconds(), Estimated: r.Estimated,
		Classes: r.Classes, Part: r.Part, Parts: r.Parts, Flow: r.Flow,
		EndToEnd: l.EndToEnd, MaySent: l.MaySent, Attempts: l.Attempts, At: l.At,
	}
	for _, s := range r.Shares {
		v.Shares = append(v.Shares, shareView{s.Exporter, s.Domain, unixTime(s.Interval), s.Count})
	}
	return v
}

// addRecord adds all of a record to t, a row for each thing there is to say.
func addRecord(t *table, l spool.Listed) {
	r := &l.Record
	t.add("id", l.ID)
	t.add("state", l.State)
	t.add("session_id", r.SessionID)
	t.add("multi_session_id", r.MultiSessionID)
	t.add("type", typeText(r.Type.String(), r.Corrects))
	t.add("number", r.Number)
	t.add("user", r.User)
	if c := r.Corrects; c != nil {
		t.add("corrects", fmt.Sprintf("%s/%d: %s", c.SessionID, c.Number, c.Reason))
	}
	t.add("realm", r.Realm)
	if r.Framed.IsValid() {
		t.add("framed", r.Framed)
	}
	if r.Source != "" {
		t.add("told_by", strings.TrimSuffix(r.Source+", "+r.NAS, ", "))
	}
	t.add("interval", timeText(r.Start)+" to "+timeText(r.End))
	t.add("event", timeText(r.Event))
	t.add("session_time", r.SessionTime)
	t.add("input", usageText(r.Usage.InputOctets, r.Usage.InputPackets))
	t.add("output", usageText(r.Usage.OutputOctets, r.Usage.OutputPackets))
	for _, c := range r.Classes {
		t.add("class "+c.Class, "input "+usageText(c.InputOctets, c.InputPackets)+", output "+usageText(c.OutputOctets, c.OutputPackets))
	}
	if r.Parts > 0 {
		t.add("part", fmt.Sprintf("%d of %d", r.Part, r.Parts))
	}
	if len(r.Flow) > 0 {
		t.add("flow", fmt.Sprintf("%d octets of AVPs", len(r.Flow)))
	}
	for _, s := range r.Shares {
		t.add("from "+s.Exporter, fmt.Sprintf("domain %d, arrived from %s: %d records, %d octets, %d packets",
			s.Domain, timeText(time.Unix(s.Interval, 0)), s.Records, s.Octets, s.Packets))
	}
	t.add("end_to_end", fmt.Sprintf("%#08x", l.EndToEnd))
	t.add("may_have_been_sent", l.MaySent)
	t.add("error_answers", l.Attempts)
	if l.Result != 0 || l.Peer != "" {
		t.add("answer", fmt.Sprintf("%d by %s at %s", l.Result, l.Peer, timeText(l.At)))
	}
	if l.Reason != "" {
		t.add("reason", l.Reason)
	}
}

func newSpoolSessions(state *stateFlags) *cobra.Command {
	var after uint64
	var limit int
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List the user sessions with their usage: open, or stopped and kept for late flows",
	}
	cmd.Flags().Uint64Var(&after, "after", 0, "only sessions with an ID above this")
	addLimit(cmd, &limit)
	return state.list(cmd, func(ctx context.Context, s *spool.Spool) (table, error) {
		list, err := s.Sessions(ctx, after, limit)
		if err != nil {
			return table{}, err
		}
		type view struct {
			ID        uint64    `json:"id"`
			SessionID string    `json:"session_id"`
			User      string    `json:"user"`
			Started   time.Time `json:"started,omitzero"`
			Stopped   time.Time `json:"stopped,omitzero"`
			Number    uint32    `json:"number"`
			acct.Usage
			Open acct.Count `json:"open"`
		}
		views := make([]view, len(list))
		t := table{columns: []string{"id", "user", "started", "stopped", "number", "input_octets", "output_octets", "open_octets", "session_id"}, value: views}
		for i, x := range list {
			record := acct.Record{Shares: x.Open}
			v := view{x.ID, x.SessionID, x.User, unixTime(x.Started), unixTime(x.Stopped), x.Number, x.Usage, record.Increment()}
			views[i] = v
			t.add(v.ID, v.User, timeText(v.Started), timeText(v.Stopped), v.Number, v.InputOctets, v.OutputOctets, v.Open.Octets, v.SessionID)
		}
		return t, nil
	})
}

func newSpoolSuspense(state *stateFlags) *cobra.Command {
	var after uint64
	var limit int
	cmd := &cobra.Command{
		Use:   "suspense",
		Short: "List the flows that wait for a user or a decision, and why",
	}
	cmd.Flags().Uint64Var(&after, "after", 0, "only flows with an ID above this")
	addLimit(cmd, &limit)
	return state.list(cmd, func(ctx context.Context, s *spool.Spool) (table, error) {
		list, err := s.Suspended(ctx, after, limit)
		if err != nil {
			return table{}, err
		}
		type view struct {
			ID       uint64     `json:"id"`
			Reason   string     `json:"reason"`
			Exporter string     `json:"exporter"`
			Domain   uint32     `json:"domain"`
			Flow     string     `json:"flow"`
			FlowEnd  time.Time  `json:"flow_end"`
			Since    time.Time  `json:"since"`
			Position uint64     `json:"journal_position"`
			Count    acct.Count `json:"count"`
		}
		views := make([]view, len(list))
		t := table{columns: []string{"id", "reason", "exporter", "flow", "flow_end", "since", "octets", "packets"}, value: views}
		for i, x := range list {
			v := view{x.ID, x.Reason, x.Key.Exporter, x.Key.Domain, x.Source, time.UnixMilli(x.FlowEnd).UTC(), time.Unix(0, x.Since).UTC(), x.Position, x.Count}
			views[i] = v
			t.add(v.ID, v.Reason, v.Exporter, v.Flow, timeText(v.FlowEnd), timeText(v.Since), v.Count.Octets, v.Count.Packets)
		}
		return t, nil
	})
}

func newSpoolCDRs(state *stateFlags) *cobra.Command {
	var filter spool.CDRFilter
	var conflicts bool
	cmd := &cobra.Command{
		Use:   "cdrs",
		Short: "List the CDRs that the accounting application has stored",
		Args:  cobra.NoArgs,
	}
	out := formatFlag(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&conflicts, "conflicts", false, "only CDRs that contradict one with the same Session-Id and number")
	flags.StringVar(&filter.User, "user", "", "only CDRs of this user")
	flags.StringVar(&filter.Session, "session", "", "only CDRs of this Session-Id")
	flags.Uint64Var(&filter.After, "after", 0, "only CDRs with an ID above this")
	addLimit(cmd, &filter.Limit)
	cmd.MarkFlagsMutuallyExclusive("conflicts", "user")
	cmd.MarkFlagsMutuallyExclusive("conflicts", "session")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, err := state.dir()
		if err != nil {
			return err
		}
		c, err := spool.OpenCDRsReadOnly(dir)
		if err != nil {
			return err
		}
		defer c.Close()
		var list []spool.StoredCDR
		if conflicts {
			found, err := c.Conflicts(cmd.Context())
			if err != nil {
				return err
			}
			for _, f := range found {
				list = append(list, f.StoredCDR)
			}
		} else if list, err = c.List(cmd.Context(), filter); err != nil {
			return err
		}
		type view struct {
			ID            uint64    `json:"id"`
			OriginHost    string    `json:"origin_host"`
			SessionID     string    `json:"session_id"`
			Number        uint32    `json:"number"`
			Type          string    `json:"type"`
			User          string    `json:"user"`
			Realm         string    `json:"realm"`
			Event         time.Time `json:"event"`
			Arrived       time.Time `json:"arrived"`
			Retransmitted bool      `json:"retransmitted"`
			acct.Usage
			Corrects *acct.Correction `json:"corrects,omitempty"`
		}
		views := make([]view, len(list))
		t := table{columns: []string{"id", "type", "number", "user", "input_octets", "output_octets", "input_packets", "output_packets", "event", "origin_host", "session_id", "realm"}, value: views}
		for i, x := range list {
			v := view{x.ID, x.OriginHost, x.SessionID, x.Number, x.Type.String(), x.User, destinationRealm(&x.CDR), x.Event, x.At, x.Retransmitted, x.Usage, x.Corrects}
			views[i] = v
			t.add(v.ID, typeText(v.Type, v.Corrects), v.Number, v.User, v.InputOctets, v.OutputOctets, v.InputPackets, v.OutputPackets, timeText(v.Event), v.OriginHost, v.SessionID, v.Realm)
		}
		return t.print(cmd.OutOrStdout(), *out)
	}
	return cmd
}

func newSpoolStats(state *stateFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Say how full the spool is and how far the pipeline has come",
	}
	return state.list(cmd, func(ctx context.Context, s *spool.Spool) (table, error) {
		st, err := s.Stats(ctx)
		if err != nil {
			return table{}, err
		}
		t := table{columns: []string{"what", "value"}, value: st}
		for d := acct.Pending; d <= acct.Covered; d++ {
			t.add("records "+d.String(), st.Records[d.String()])
		}
		if !st.Oldest.IsZero() {
			t.add("oldest pending record", timeText(st.Oldest))
		}
		t.add("sessions, open or kept for late flows", st.Sessions)
		t.add("flows in suspense", st.Suspended)
		if st.First > st.Last {
			t.add("journal entries", 0)
		} else {
			t.add("journal entries", st.Last-st.First+1)
		}
		t.add("journal last position", st.Last)
		t.add("checkpoint position", st.Checkpoint)
		if st.Damaged > 0 {
			t.add("damaged journal groups set aside", st.Damaged)
		}
		t.add("octets of state.db", st.Octets.State)
		t.add("octets of journal.db", st.Octets.Journal)
		t.add("octets of cdr.db", st.Octets.CDR)
		return t, nil
	})
}

// unixTime is a time in Unix seconds, where 0 is none.
func unixTime(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

// timeText is a time as listings show it: RFC 3339 in UTC, blank for none.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.999Z")
}

func usageText(octets, packets uint64) string {
	return fmt.Sprintf("%d octets, %d packets", octets, packets)
}

func blankZero(n uint32) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(n), 10)
}
