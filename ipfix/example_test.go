package ipfix_test

import (
	"fmt"
	"net/netip"

	"tollbridge/ipfix"
)

// An Exporting Process encodes a Template and a record; a Collecting Process
// decodes them.
func Example() {
	template, err := ipfix.NewTemplate(256,
		ipfix.FieldSpecifier{ID: ipfix.SourceIPv4Address, Length: 4},
		ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 4}, // of reduced size
	)
	if err != nil {
		panic(err)
	}
	encoder := ipfix.NewEncoder(1, 1400)
	if err := encoder.AddTemplate(template); err != nil {
		panic(err)
	}
	if err := encoder.AddRecord(template, netip.MustParseAddr("192.0.2.12"), 120868); err != nil {
		panic(err)
	}
	message := encoder.Flush(1784851200)

	session := ipfix.NewSession(ipfix.TCP)
	result, err := session.Decode(message, func(set ipfix.DataSet) {
		source, _ := set.Template.Accessor(0, ipfix.SourceIPv4Address)
		octets, _ := set.Template.Accessor(0, ipfix.OctetDeltaCount)
		for record, ok := set.Next(); ok; record, ok = set.Next() {
			fmt.Println(source.Addr(record), octets.Uint64(record))
		}
	})
	fmt.Println(result.Records, err)
	// Output:
	// 192.0.2.12 120868
	// 1 <nil>
}

// A Plan reads several elements at once, whichever of them a Template has.
func ExamplePlan() {
	const (
		source = 0 // an Address takes two slots
		octets = 2
		start  = 3
	)
	columns := []ipfix.Column{
		{Slot: source, Form: ipfix.Address, Elements: []ipfix.Element{{ID: ipfix.SourceIPv4Address}, {ID: ipfix.SourceIPv6Address}}},
		{Slot: octets, Form: ipfix.Number, Elements: []ipfix.Element{{ID: ipfix.OctetDeltaCount}}},
		{Slot: start, Form: ipfix.UnixMilli, Elements: []ipfix.Element{{ID: ipfix.FlowStartMilliseconds}, {ID: ipfix.FlowStartSeconds}}},
	}
	template, err := ipfix.NewTemplate(256,
		ipfix.FieldSpecifier{ID: ipfix.SourceIPv4Address, Length: 4},
		ipfix.FieldSpecifier{ID: ipfix.FlowStartSeconds, Length: 4},
		ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 4},
	)
	if err != nil {
		panic(err)
	}
	record, err := template.Record([]byte{192, 0, 2, 12, 0x6a, 0x62, 0xab, 0x80, 0, 1, 0xd8, 0x24})
	if err != nil {
		panic(err)
	}
	plan := template.Plan(columns...)
	var row [4]uint64
	plan.Read(record, row[:])
	fmt.Println(ipfix.Addr(row[source], row[source+1]), row[octets], row[start])
	// Output: 192.0.2.12 120868 1784851328000
}
