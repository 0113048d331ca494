package dict

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite tollbridge.xml")

// The embedded dictionary is the one that the registry gives.
func TestEmbeddedDictionaryIsCurrent(t *testing.T) {
	want := For(DefaultVendor).writeGoDiameter()
	if *update {
		if err := os.WriteFile("tollbridge.xml", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if goDiameter != want {
		t.Error("tollbridge.xml is not what the registry gives; run: go test ./dict -run Embedded -update")
	}
}

func TestFreeDiameterSource(t *testing.T) {
	text := For(4711).FreeDiameter()
	for _, want := range []string{
		`{ "Tollbridge-Flow", 131073, AVP_TYPE_GROUPED, NULL },`,
		`{ "IPFIX-octetDeltaCount", 65537, AVP_TYPE_UNSIGNED64, NULL },`,
		`{ "IPFIX-sourceIPv4Address", 65544, AVP_TYPE_OCTETSTRING, "Address" },`,
		`{ "IPFIX-reverseOctetDeltaCount", 98305, AVP_TYPE_UNSIGNED64, NULL },`,
		`struct dict_vendor_data vendor = { 4711, "Tollbridge" };`,
		`EXTENSION_ENTRY("dict_tollbridge", dict_tollbridge_entry);`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no line %s", want)
		}
	}
}
