// Package spoolcmd is "tollbridge spool": what a state directory holds, and what
// operators order of it.
package spoolcmd

import (
	"github.com/spf13/cobra"

	"tollbridge/cmd/tollbridge/internal/state"
)

// New is the command.
func New() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "spool",
		Short: "Look at what the spool holds: accounting records, sessions, suspense",
		Long: `Spool shows what a state directory holds, beside a running daemon or without
one: the accounting records and what became of them, the sessions that are
open, the flows in suspense, and how full it is.`,
	}
	where := state.AddFlags(cmd)
	cmd.AddCommand(
		newList(where), newShow(where), newTail(where), newExport(where), newRequeue(where),
		newSessions(where), newSuspense(where), newRelease(where), newReject(where), newAdjust(where), newDecisions(where),
		newCDRs(where), newJournal(where), newArchive(where),
		newStats(where), newVerify(where), newRestored(where),
	)
	return cmd
}
