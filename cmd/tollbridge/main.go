// The command tollbridge is an accounting bridge between IPFIX and Diameter:
// it measures traffic, maps it to users, and delivers accounting records that
// an ISP can bill from.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"tollbridge/cmd/tollbridge/internal/auditcmd"
	"tollbridge/cmd/tollbridge/internal/flowfiles"
	"tollbridge/cmd/tollbridge/internal/reconcile"
	"tollbridge/cmd/tollbridge/internal/replay"
	"tollbridge/cmd/tollbridge/internal/spoolcmd"
	"tollbridge/cmd/tollbridge/internal/terminal"
	"tollbridge/cmd/tollbridge/internal/userscmd"
)

func main() { os.Exit(run()) }

// run is main with an exit status, so that tests can be the command.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	root := newRoot()
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	for _, of := range []string{"required flag", "if any flags in the group", "at least one of the flags in the group"} {
		if strings.HasPrefix(err.Error(), of) { // cobra does not say of which command
			err = fmt.Errorf("%w; see \"%s --help\"", err, cmd.CommandPath())
		}
	}
	terminal.PrintError(root.ErrOrStderr(), err)
	return 1
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "tollbridge",
		Short: "An accounting bridge between IPFIX and Diameter",
		Long: `Tollbridge turns traffic into accounting records that can be billed from.

Meters and routers send it flow records (IPFIX, RFC 7011). It finds out whose
they are, removes duplicates, sums them up per user and interval, and delivers
Diameter accounting records (RFC 6733) until a server has acknowledged each.
Its books balance to the octet; "tollbridge audit" shows them.

Start with "tollbridge demo", which does all of it on this machine in seconds.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.Args, root.RunE = cobra.ArbitraryArgs, runGroup
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if strings.HasPrefix(err.Error(), "unknown") { // others say what is expected
			return fmt.Errorf("%w; see \"%s --help\"", err, cmd.CommandPath())
		}
		return err
	})
	root.AddCommand(
		newServe(), newMeter(), newDemo(), newCheck(),
		spoolcmd.New(), auditcmd.New(), replay.New(), reconcile.New(), userscmd.New(), newCredit(), newDict(), flowfiles.New(), newVersion(),
	)
	for _, group := range root.Commands() {
		if group.HasSubCommands() && group.RunE == nil {
			group.RunE = runGroup
		}
	}
	sayUsage(root)
	return root
}

// sayUsage has every command say how it is used where its arguments don't fit.
func sayUsage(cmd *cobra.Command) {
	if fit := cmd.Args; fit != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if fit(cmd, args) == nil {
				return nil
			}
			what := "an argument is missing"
			if len(args) > 0 {
				what = fmt.Sprintf("%q is not what it takes", strings.Join(args, " "))
			}
			return fmt.Errorf("%s: %s: the usage is %s", strings.TrimPrefix(cmd.CommandPath(), "tollbridge "), what, cmd.UseLine())
		}
	}
	for _, c := range cmd.Commands() {
		sayUsage(c)
	}
}

// runGroup is what a command does that is only the head of others: it shows
// its help, and refuses a word that is none of them.
func runGroup(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		advice := fmt.Sprintf("see \"%s --help\"", cmd.CommandPath())
		cmd.SuggestionsMinimumDistance = 2
		if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
			advice = "did you mean " + strings.Join(like, " or ") + "?"
		}
		return fmt.Errorf("unknown command %q for %q: %s", args[0], cmd.CommandPath(), advice)
	}
	return cmd.Help()
}
