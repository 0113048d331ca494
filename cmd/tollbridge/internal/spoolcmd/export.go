package spoolcmd

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"tollbridge/cmd/tollbridge/internal/state"
	"tollbridge/spool"
)

func newExport(where *state.Flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write all accounting records with all that is known of them, as lines of JSON",
		Example: `  tollbridge spool export > records.jsonl
  tollbridge spool export --data /tmp/whatif | jq 'select(.user == "alice")'`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := where.Open()
		if err != nil {
			return err
		}
		defer s.Close()
		e := json.NewEncoder(cmd.OutOrStdout())
		for after := uint64(0); ; {
			list, err := s.List(cmd.Context(), spool.Filter{After: after, Limit: 1000})
			if err != nil || len(list) == 0 {
				return err
			}
			for _, l := range list {
				if err := e.Encode(detailOf(l)); err != nil {
					return err
				}
				after = l.ID
			}
		}
	}
	return cmd
}
