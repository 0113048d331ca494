package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/dict"
)

func newDict() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dict",
		Short: "Show how Information Elements and AVPs correspond, or export the dictionary",
		Long: `Dict shows the AVP that carries each Information Element where flow records go
to an AAA server as they are (accounting.mode: aaa-client), and writes the
dictionary for programs that are to know these AVPs. --vendor is the
configuration's delivery.vendorId.`,
		Example: `  tollbridge dict show octetDeltaCount
  tollbridge dict export freediameter`,
	}
	var vendor uint32
	cmd.PersistentFlags().Uint32Var(&vendor, "vendor", dict.DefaultVendor, "Vendor-Id of our AVPs")
	cmd.AddCommand(newDictShow(&vendor), newDictExport(&vendor))
	return cmd
}

func newDictShow(vendor *uint32) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show [NAME | NUMBER]...",
		Short: "List AVPs, all or those whose element or AVP has one of these names or numbers",
		Example: `  tollbridge dict show octetDeltaCount
  tollbridge dict show 363 -o json`,
	}
	out := listing.FormatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		type view struct {
			Element    uint16 `json:"element,omitempty"`
			Enterprise uint32 `json:"enterprise,omitempty"`
			Name       string `json:"name"`
			Abstract   string `json:"abstract_data_type,omitempty"`
			AVP        string `json:"avp"`
			Code       uint32 `json:"code"`
			Vendor     uint32 `json:"vendor"`
			Type       string `json:"type"`
			Mandatory  bool   `json:"mandatory"`
		}
		t := listing.Table{Columns: []string{"element", "enterprise", "name", "abstract_data_type", "avp", "code", "vendor", "type", "m"}}
		views := []view{}
		for r := range dict.For(*vendor).Rows() {
			if !matches(r, args) {
				continue
			}
			v := view{r.Element, r.Enterprise, r.Name, r.Abstract, r.AVP, r.Code, r.Vendor, fmt.Sprint(r.Type), r.Mandatory}
			views = append(views, v)
			m := "clear"
			if v.Mandatory {
				m = "set"
			}
			t.Add(listing.BlankZero(uint32(v.Element)), listing.BlankZero(v.Enterprise), v.Name, v.Abstract, v.AVP, v.Code, v.Vendor, v.Type, m)
		}
		if len(views) == 0 {
			return fmt.Errorf("no Information Element and no AVP is called %s", strings.Join(args, " or "))
		}
		t.Value = views
		return t.Print(cmd.OutOrStdout(), *out)
	}
	return cmd
}

// matches reports whether a row is one of those asked for; none asked for
// means all.
func matches(r dict.Row, names []string) bool {
	for _, n := range names {
		number, err := strconv.ParseUint(n, 10, 32)
		if err == nil && (uint64(r.Code) == number || r.Element != 0 && uint64(r.Element) == number) ||
			strings.EqualFold(r.Name, n) || strings.EqualFold(r.AVP, n) {
			return true
		}
	}
	return len(names) == 0
}

func newDictExport(vendor *uint32) *cobra.Command {
	forms := []string{"go-diameter", "wireshark", "freediameter"}
	return &cobra.Command{
		Use:       "export {go-diameter | wireshark | freediameter}",
		Short:     "Print the dictionary in another program's form",
		Example:   "  tollbridge dict export wireshark > diameter/Custom.xml  # in Wireshark's data directory",
		Args:      cobra.ExactArgs(1),
		ValidArgs: forms, // for completion
		RunE: func(cmd *cobra.Command, args []string) error {
			d := dict.For(*vendor)
			var text string
			switch args[0] {
			case "go-diameter":
				text = d.GoDiameter()
			case "wireshark":
				text = d.Wireshark()
			case "freediameter":
				text = d.FreeDiameter()
			default:
				return fmt.Errorf("%q is not one of %s", args[0], strings.Join(forms, ", "))
			}
			_, err := fmt.Fprint(cmd.OutOrStdout(), text)
			return err
		},
	}
}
