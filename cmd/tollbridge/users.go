package main

import "github.com/spf13/cobra"

func newUsers() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "users",
		Short: "Look at users, what they hold and what they have used",
	}
	state := addStateFlags(cmd)
	cmd.AddCommand(newUsersLs(state), newUsersShow(state), newUsersAt(state), newUsersImport(state), newUsersUsage(state), newUsersPseudonym(state))
	return cmd
}
