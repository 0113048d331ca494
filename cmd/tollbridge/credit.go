package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"tollbridge/aaaclient/credit"
	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/cmd/tollbridge/internal/state"
	"tollbridge/spool"
)

// openCredit opens credit control, if there is to be any.
func (b *bridge) openCredit() error {
	c := b.cfg.CreditControl
	if len(c.Peers) == 0 {
		return nil
	}
	store, err := b.spool.OpenCredit()
	if err != nil {
		return err
	}
	b.closers = append(b.closers, store.Close)
	var credentials *peer.Credentials
	var peers []credit.Peer
	for _, p := range c.Peers {
		out := credit.Peer{Host: p.Host, Address: p.Address.String()}
		if p.TLS {
			if credentials == nil {
				t := b.cfg.Delivery.TLS
				if credentials, err = peer.LoadCredentials(t.Certificate, t.Key, t.CA, b.log); err != nil {
					return fmt.Errorf("delivery.tls: %w", err)
				}
			}
			out.TLS = credentials
		}
		peers = append(peers, out)
	}
	var exhausted func(credit.Exhausted) bool
	if b.disconnect != nil {
		exhausted = b.disconnect.exhausted
	}
	b.credit, err = credit.New(credit.Config{
		OriginHost:       cmp.Or(c.OriginHost, b.cfg.Identity.OriginHost),
		OriginRealm:      b.cfg.Identity.OriginRealm,
		StateID:          b.spool.Meta().OriginStateID,
		DestinationRealm: c.DestinationRealm,
		ServiceContext:   c.ServiceContext,
		Peers:            peers,
		Rating:           rating(c),
		Request:          uint64(c.Request),
		Threshold:        c.Threshold,
		Timeout:          b.cfg.Delivery.Timeout,
		Connect:          b.cfg.Delivery.Reconnect,
		Watchdog:         b.cfg.Delivery.Watchdog,
		Feed:             b.spool,
		Store:            creditStore{store},
		Exhausted:        exhausted,
		Log:              b.log,
	})
	return err
}

// rating returns which Rating-Group a class of usage is charged to.
func rating(c config.CreditControl) func(class string) (uint32, bool) {
	groups := make(map[string]config.RatingGroup)
	for _, r := range c.Classes {
		groups[r.Name] = r
	}
	return func(class string) (uint32, bool) {
		if r, named := groups[class]; named {
			return uint32(r.RatingGroup), !r.Free
		}
		return uint32(c.RatingGroup), true
	}
}

// openDisconnect opens what ends sessions, or changes them, if that is wanted.
func (b *bridge) openDisconnect() (err error) {
	c := b.cfg.CreditControl
	if c.AtZero == "report" {
		return nil
	}
	if b.disconnect, err = newDisconnector(b.cfg.Users.RADIUS.Clients, c.AtZero, c.FilterID, b.log); err != nil {
		return fmt.Errorf("users.radius: %w", err)
	}
	if b.server != nil {
		b.disconnect.addAccessServers(b.server, b.cfg.Server.AccessServers)
	}
	b.realtime = &realtime{client: b.client, outbox: b.spool.Outbox(), withdraw: b.disconnect.withdraw, log: b.log, patience: b.cfg.Delivery.Timeout}
	return nil
}

// controlCredit runs credit control, and what ends sessions, where they are
// configured, until ctx ends.
func (b *bridge) controlCredit(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if b.credit != nil {
		g.Go(func() error { return b.credit.Run(ctx) })
	}
	if b.disconnect != nil {
		g.Go(func() error { return b.disconnect.run(ctx) })
		g.Go(func() error { return b.realtime.run(ctx) })
	}
	g.Go(func() error { <-ctx.Done(); return nil }) // there may be neither
	return g.Wait()
}

// A creditStore keeps sessions as JSON.
type creditStore struct{ *spool.Credit }

func (s creditStore) Load(ctx context.Context) (after uint64, sessions []credit.Session, err error) {
	after, err = s.Credit.Load(ctx, func(key string, value []byte) error {
		var c credit.Session
		if err := json.Unmarshal(value, &c); err != nil {
			return fmt.Errorf("credit-control session %s: %w", key, err)
		}
		sessions = append(sessions, c)
		return nil
	})
	return after, sessions, err
}

func (s creditStore) Save(ctx context.Context, after uint64, sessions []credit.Session) error {
	states := make([]acct.State, len(sessions))
	for i := range sessions {
		states[i].Key = sessions[i].SessionID
		if sessions[i].Over() {
			continue
		}
		var err error
		if states[i].Value, err = json.Marshal(&sessions[i]); err != nil {
			return err
		}
	}
	return s.Credit.Save(ctx, after, states)
}

func newCredit() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "credit",
		Short: "Look at users' quotas",
		Long: `Credit shows what a credit-control server has granted (RFC 8506), and what of it
is used, beside a running daemon or without one. Usage is that of accounting
records, so it moves once in accounting.interimInterval.`,
		Example: "  tollbridge credit ls --user alice@isp.example",
	}
	where := state.AddFlags(cmd)
	cmd.AddCommand(newCreditList(where))
	return cmd
}

// A quotaView is a Rating-Group of a session as listings show it.
type quotaView struct {
	SessionID   string `json:"session_id"`
	User        string `json:"user"`
	RatingGroup uint32 `json:"rating_group"`
	State       string `json:"state"`
	Used        uint64 `json:"used_octets"`
	Reported    uint64 `json:"reported_octets"`
	Limit       uint64 `json:"limit_octets"`
	Unanswered  bool   `json:"unanswered"`
	Why         string `json:"why,omitempty"`
}

func newCreditList(where *state.Flags) *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List what is granted and used of each session and Rating-Group",
		Long: `Ls lists each session under credit control and each of its Rating-Groups.

  asking     the server has not answered yet
  granted    usage is within what was granted
  last       the same, and there will be no more
  exhausted  more is used than was granted
  free       the server wants no credit control of it
  closed     the server has ended credit control of the session; why says so`,
		Example: `  tollbridge credit ls
  tollbridge credit ls --user alice@isp.example -o json`,
		Args: cobra.NoArgs,
	}
	out := listing.FormatFlag(cmd)
	cmd.Flags().StringVar(&user, "user", "", "only sessions of this user")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, err := where.Dir()
		if err != nil {
			return err
		}
		store, err := spool.OpenCreditReadOnly(dir)
		if err != nil {
			return err
		}
		_, sessions, err := creditStore{store}.Load(cmd.Context())
		if err = errors.Join(err, store.Close()); err != nil {
			return err
		}
		views := []quotaView{}
		t := listing.Table{Columns: []string{"user", "rating_group", "state", "used_octets", "limit_octets", "session_id", "why"}}
		for _, s := range sessions {
			if user != "" && s.User != user {
				continue
			}
			for _, v := range s.Services {
				q := quotaView{
					SessionID: s.SessionID, User: s.User, RatingGroup: v.RatingGroup, State: v.State(&s),
					Used: v.Octets(), Reported: v.Reported.InputOctets + v.Reported.OutputOctets,
					Limit: v.Limit, Unanswered: s.Pending != nil, Why: s.Why,
				}
				views = append(views, q)
				t.Add(q.User, q.RatingGroup, q.State, q.Used, q.Limit, q.SessionID, cmp.Or(q.Why, "-"))
			}
		}
		t.Value = views
		return t.Print(cmd.OutOrStdout(), *out)
	}
	return cmd
}
