package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"tollbridge/cmd/tollbridge/internal/listing"
)

// version is set by the linker in a release.
var version = "devel"

func newVersion() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of tollbridge and of what it is built from",
		Example: "  tollbridge version -o json",
		Args:    cobra.NoArgs,
	}
	out := listing.FormatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v := map[string]string{"tollbridge": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
		if info, ok := debug.ReadBuildInfo(); ok {
			for _, s := range info.Settings {
				if s.Key == "vcs.revision" {
					v["revision"] = s.Value
				}
			}
		}
		t := listing.Table{Columns: []string{"what", "version"}, Value: v}
		for _, k := range []string{"tollbridge", "revision", "go", "platform"} {
			if v[k] != "" {
				t.Add(k, v[k])
			}
		}
		return t.Print(cmd.OutOrStdout(), *out)
	}
	return cmd
}
