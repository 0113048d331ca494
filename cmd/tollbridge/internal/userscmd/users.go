// Package userscmd is "tollbridge users": who held what, and what users have used.
package userscmd

import (
	"github.com/spf13/cobra"

	"tollbridge/cmd/tollbridge/internal/state"
)

// New is the command.
func New() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "users",
		Short: "Look at users, what they hold and what they have used",
		Long: `Users shows whose traffic is whose, beside a running daemon or without one: who
holds which address and by which source, why a flow was this user's and no
other's, and what users have used in their present sessions.`,
		Example: `  tollbridge users import subscribers.csv
  tollbridge users at 192.0.2.7 2026-11-22T12:00:00Z
  tollbridge users usage --now alice`,
	}
	where := state.AddFlags(cmd)
	cmd.AddCommand(newLs(where), newShow(where), newAt(where), newImport(where), newUsage(where), newPseudonym(where))
	return cmd
}
