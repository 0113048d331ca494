package spool

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// A state directory that two machines could have open is refused to daemons that
// take turns, and told of to one that is alone.
func TestCheckFileSystem(t *testing.T) {
	if name := fileSystemOf(t.TempDir()); name != "" {
		t.Skipf("skipped: temporary files are on %s", name)
	}
	if name := sharedFileSystems[0x6969]; name != "NFS" { // statfs(2)
		t.Errorf("0x6969 is %q", name)
	}
	for _, row := range []struct {
		name         string
		lease        bool
		refused, log string
	}{
		{"", true, "", ""},
		{"", false, "", ""},
		{"NFS", true, "data is on NFS", ""},
		{"NFS", false, "", "network file system"},
	} {
		var said bytes.Buffer
		err := checkFileSystem("data", row.name, row.lease, slog.New(slog.NewTextHandler(&said, nil)))
		if (err != nil) != (row.refused != "") || err != nil && !strings.Contains(err.Error(), row.refused) {
			t.Errorf("%q, lease %v: error %v", row.name, row.lease, err)
		}
		if !strings.Contains(said.String(), row.log) || row.log == "" && said.Len() > 0 {
			t.Errorf("%q, lease %v: the log says %q", row.name, row.lease, &said)
		}
	}
}
