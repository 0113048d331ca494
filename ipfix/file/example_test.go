package file_test

import (
	"bytes"
	"fmt"
	"io"

	"tollbridge/ipfix"
	"tollbridge/ipfix/file"
)

// An IPFIX File is written, and read again with its checksums verified.
func Example() {
	t, err := ipfix.NewTemplate(256,
		ipfix.FieldSpecifier{ID: ipfix.SourceIPv4Address, Length: 4},
		ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 8})
	if err != nil {
		panic(err)
	}
	e := ipfix.NewEncoder(1, 0)
	if err := e.AddTemplate(t); err != nil {
		panic(err)
	}
	if err := e.AddRecord(t, []byte{192, 0, 2, 1}, 1500); err != nil {
		panic(err)
	}

	var b bytes.Buffer
	w, err := file.NewWriter(&b, file.Config{Checksums: true})
	if err != nil {
		panic(err)
	}
	if err := w.Write(e.Flush(1_700_000_000)); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}

	session := ipfix.NewSession(ipfix.TCP)
	r := file.NewReader(&b)
	for {
		m, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			panic(err)
		}
		_, err = session.Decode(m.Octets, func(s ipfix.DataSet) {
			found, err := file.VerifyChecksum(m.Octets, s)
			fmt.Println("data set", s.ID, "records", s.Records, "checksum", found, err)
		})
		if err != nil {
			panic(err)
		}
	}
	// Output:
	// data set 256 records 1 checksum false <nil>
	// data set 65535 records 1 checksum true <nil>
}
