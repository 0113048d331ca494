package spoolcmd

import (
	"time"

	"github.com/spf13/cobra"

	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/cmd/tollbridge/internal/state"
	"tollbridge/dict/avp"
	"tollbridge/spool"
)

func newCDRs(where *state.Flags) *cobra.Command {
	var filter spool.CDRFilter
	var conflicts bool
	cmd := &cobra.Command{
		Use:   "cdrs",
		Short: "List the CDRs that the accounting application has stored",
		Example: `  tollbridge spool cdrs --user alice
  tollbridge spool cdrs --conflicts
  tollbridge spool cdrs --limit 0 -o csv > cdrs.csv`,
		Args: cobra.NoArgs,
	}
	out := listing.FormatFlag(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&conflicts, "conflicts", false, "only CDRs that contradict one with the same Session-Id and number")
	flags.StringVar(&filter.User, "user", "", "only CDRs of this user")
	flags.StringVar(&filter.Session, "session", "", "only CDRs of this Session-Id")
	listing.AddPage(cmd, "CDRs", &filter.After, &filter.Limit)
	cmd.MarkFlagsMutuallyExclusive("conflicts", "user")
	cmd.MarkFlagsMutuallyExclusive("conflicts", "session")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, err := where.Dir()
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
		t := listing.Table{Columns: []string{"id", "type", "number", "user", "input_octets", "output_octets", "input_packets", "output_packets", "event", "origin_host", "session_id", "realm"}, Value: views}
		for i, x := range list {
			realm, _ := avp.Find(x.AVPs, avp.DestinationRealm, 0)
			v := view{x.ID, x.OriginHost, x.SessionID, x.Number, x.Type.String(), x.User, string(realm.Data), x.Event, x.At, x.Retransmitted, x.Usage, x.Corrects}
			views[i] = v
			t.Add(v.ID, listing.RecordType(v.Type, v.Corrects), v.Number, v.User, v.InputOctets, v.OutputOctets, v.InputPackets, v.OutputPackets, listing.Time(v.Event), v.OriginHost, v.SessionID, v.Realm)
		}
		return t.Print(cmd.OutOrStdout(), *out)
	}
	return cmd
}
