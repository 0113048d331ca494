// Package flowfiles has the commands "tollbridge ipfix": they read flow records
// wherever people keep them, and print, send or convert them.
package flowfiles

import "github.com/spf13/cobra"

// New returns the command ipfix.
func New() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ipfix",
		Short: "Look into files of flow records, send them again, or convert them",
		Long: `These commands read flow records wherever people keep them:

  IPFIX Files (RFC 5655)       messages end to end, from collectors and probes
  captures, pcap and pcapng    UDP datagrams, and TCP connections put together
  raw payloads                 datagrams as they came, one or several end to end

NetFlow versions 5 and 9 are read like IPFIX. Files are told apart by their
content; "-" is standard input. Several files are read one after the other in
one template context, so a file of templates may go before a file of data. In
captures every exporter's transport session has templates of its own; what it
lacks is looked for in the other sessions and files.`,
	}
	cmd.AddCommand(newDump(), newReplay(), newConvert())
	return cmd
}
