package dict

import (
	"flag"
	"os"
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
