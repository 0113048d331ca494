package main

import "github.com/spf13/cobra"

func newUsers() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "users",
		Short: "Look at users and what they have used",
	}
	state := addStateFlags(cmd)
	cmd.AddCommand(newUsersUsage(state))
	return cmd
}
