package main

import (
	"github.com/spf13/cobra"
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
	cmd.AddCommand(
		newSpoolList(state), newSpoolShow(state), newSpoolTail(state), newSpoolExport(state), newSpoolRequeue(state),
		newSpoolSessions(state), newSpoolSuspense(state), newSpoolRelease(state), newSpoolReject(state), newSpoolAdjust(state), newSpoolDecisions(state),
		newSpoolCDRs(state), newSpoolJournal(state), newSpoolArchive(state),
		newSpoolStats(state), newSpoolVerify(state), newSpoolRestored(state),
	)
	return cmd
}
