package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"tollbridge/asm/users"
	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/cmd/tollbridge/internal/profile"
)

func newCheck() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check [-c FILE] [FILE]",
		Short: "Check a configuration file and the files that it names",
		Long: `Check reads a configuration as "tollbridge serve" would, and the users files
that it names, and reports everything that is wrong at once: file, line, key,
and what would be right. It opens no port and touches no state. Bindings that
contradict or repeat others are warned of, and are no error.`,
		Example: "  tollbridge check -c tollbridge.yaml",
		Args:    cobra.MaximumNArgs(1),
	}
	cmd.Flags().StringVarP(&file, "config", "c", "tollbridge.yaml", "configuration file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			file = args[0]
		}
		c, err := config.Load(file)
		if err != nil {
			return err
		}
		_, err = profile.Of(c.Delivery)
		problems := []error{settings(c).Validate(), checkSources(c), err}
		for _, f := range c.Users.Files {
			u, err := users.ParseFile(f)
			problems = append(problems, err)
			for _, w := range u.Warnings {
				fmt.Fprintf(cmd.ErrOrStderr(), "tollbridge: warning: %v\n", w)
			}
		}
		if err := errors.Join(problems...); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s is valid\n", file)
		return nil
	}
	return cmd
}
