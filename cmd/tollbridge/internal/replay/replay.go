// Package replay is "tollbridge replay": the pipeline again, over an archive.
package replay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/spool"
	"tollbridge/spool/archive"
)

// New is the command.
func New() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "replay ARCHIVE --data EMPTYDIR",
		Short: "Run the pipeline over an archive, into an empty spool",
		Long: `Replay reads the journal in an archive and runs the pipeline over it again, into
a new spool: the accounting records come to the same amounts per user, to the
octet. They get a Session-Id epoch of their own and are delivered to nobody. An
archive whose oldest segments have expired begins with the state of then, and
the totals are those of what it still holds; a copy of a flow record that came
before is not recognized as a duplicate.`,
		Example: `  tollbridge replay /var/lib/tollbridge/archive --data /tmp/whatif
  tollbridge audit --data /tmp/whatif`,
		Args: cobra.ExactArgs(1),
	}
	out := listing.FormatFlag(cmd)
	cmd.Flags().StringVar(&data, "data", "", "directory of the new spool, which must be empty or not there")
	cmd.MarkFlagRequired("data") //nolint:errcheck // the flag is the line above's
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if found, err := os.ReadDir(data); err == nil && len(found) > 0 {
			return fmt.Errorf("%s is not empty: name a directory for the new spool", data)
		}
		if segments, _, err := archive.Read(args[0]); err != nil {
			return err
		} else if len(segments) == 0 {
			return fmt.Errorf("%s holds no archive", args[0])
		}
		totals, err := replayArchive(cmd.Context(), args[0], data)
		if err != nil {
			return err
		}
		t := listing.Table{Value: totals, Columns: []string{"user", "records", "octets", "packets", "open_octets", "credited_octets"}}
		for _, u := range totals {
			t.Add(u.User, u.Cut.Records, u.Cut.Octets, u.Cut.Packets, u.Open.Octets, u.Credited.Octets)
		}
		return t.Print(cmd.OutOrStdout(), *out)
	}
	return cmd
}

// An Amount is what was accounted to a user.
type Amount struct {
	User     string     `json:"user"`
	Cut      acct.Count `json:"cut"`      // into accounting records
	Open     acct.Count `json:"open"`     // not yet
	Credited acct.Count `json:"credited"` // taken away again by corrections
}

// Amounts sums up what the records and sessions of a spool have.
func Amounts(ctx context.Context, s *spool.Spool) ([]Amount, error) {
	users := make(map[string]*Amount)
	of := func(name string) *Amount {
		if users[name] == nil {
			users[name] = &Amount{User: name}
		}
		return users[name]
	}
	records, err := s.List(ctx, spool.Filter{})
	if err != nil {
		return nil, err
	}
	for _, l := range records {
		u := of(l.Record.User)
		if c := l.Record.Corrects; c != nil && c.Credit {
			u.Credited = u.Credited.Plus(l.Record.Increment())
		} else {
			u.Cut = u.Cut.Plus(l.Record.Increment())
		}
	}
	sessions, err := s.Sessions(ctx, 0, 0)
	if err != nil {
		return nil, err
	}
	for _, x := range sessions {
		u := of(x.User)
		u.Open = u.Open.Plus((&acct.Record{Shares: x.Open}).Increment())
	}
	out := []Amount{}
	for _, name := range slices.Sorted(maps.Keys(users)) {
		out = append(out, *users[name])
	}
	return out, nil
}

// replayArchive runs the pipeline over the archive in dir into a new spool and
// returns what each user was accounted.
func replayArchive(ctx context.Context, dir, data string) ([]Amount, error) {
	r := &replayer{data: data}
	err := archive.ReadJournal(dir, func(o spool.Opening) error { return r.begin(ctx, o) }, func(e acct.Entry) error { return r.entry(ctx, e) })
	if err == nil && r.spool != nil {
		err = r.work(ctx)
	}
	if err == nil && r.spool != nil {
		err = r.module.Checkpoint(ctx)
	}
	var totals []Amount
	if err == nil && r.spool != nil {
		totals, err = Amounts(ctx, r.spool)
	}
	return totals, errors.Join(err, r.close())
}

// A replayer puts entries into the journal of a new spool and applies them.
type replayer struct {
	data    string
	spool   *spool.Spool
	module  *asm.Module
	entries []acct.Entry // not in the journal yet
	next    uint64       // position of the entry behind them
	applied int          // since the last checkpoint

	stop context.CancelFunc // of the journal
	done chan error
}

// begin makes the spool, with the state that the archive begins with.
func (r *replayer) begin(ctx context.Context, o spool.Opening) error {
	var err error
	if r.spool, err = spool.Open(r.data, spool.Config{}); err != nil {
		return err
	}
	if o.Position > 0 {
		// The journal goes on behind the checkpoint when it is opened next.
		if err := errors.Join(r.spool.Begin(ctx, o), r.spool.Close()); err != nil {
			return err
		}
		if r.spool, err = spool.Open(r.data, spool.Config{}); err != nil {
			return err
		}
	}
	r.next = o.Position + 1
	if r.module, err = asm.New(ctx, asm.Config{Store: r.spool, Journal: r.spool.Journal()}); err != nil {
		return err
	}
	var run context.Context
	run, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	r.done = make(chan error, 1)
	go func() { r.done <- r.spool.Journal().Run(run) }()
	return nil
}

// entry takes in an entry. One that the journal had lost is put in as a tick,
// which says nothing new, so that positions stay.
func (r *replayer) entry(ctx context.Context, e acct.Entry) error {
	for ; r.next < e.Position; r.next++ {
		r.entries = append(r.entries, acct.Entry{Position: r.next, Kind: acct.EntryTick, Time: e.Time})
	}
	r.entries = append(r.entries, e)
	r.next++
	if len(r.entries) < 1000 {
		return nil
	}
	return r.work(ctx)
}

// work journals the entries and applies them.
func (r *replayer) work(ctx context.Context) error {
	j := r.spool.Journal()
	last := uint64(0)
	for _, e := range r.entries {
		at, err := j.Append(e.Kind, e.Time, e.Session, e.Data)
		if err != nil {
			return err
		}
		if at != e.Position {
			return fmt.Errorf("entry %d of the archive comes to position %d of the new journal", e.Position, at)
		}
		last = at
	}
	if err := j.Wait(ctx, last); err != nil {
		return err
	}
	for _, e := range r.entries {
		if err := r.module.Apply(ctx, e); err != nil {
			return err
		}
	}
	if r.applied += len(r.entries); r.applied >= 20_000 {
		r.applied = 0
		if err := r.module.Checkpoint(ctx); err != nil {
			return err
		}
	}
	r.entries = r.entries[:0]
	return nil
}

func (r *replayer) close() error {
	var errs []error
	if r.stop != nil {
		r.stop()
		errs = append(errs, <-r.done)
	}
	if r.spool != nil {
		errs = append(errs, r.spool.Close())
	}
	return errors.Join(errs...)
}
