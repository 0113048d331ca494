package dict_test

import (
	"fmt"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/dict"
	"tollbridge/dict/avp"
	"tollbridge/ipfix"
)

// A flow record becomes a Flow AVP and the same record again. The counter has
// four octets instead of eight, which the Flow-Template remembers.
func ExampleDictionary_AppendFlow() {
	template, err := ipfix.NewTemplate(256,
		ipfix.FieldSpecifier{ID: ipfix.SourceIPv4Address, Length: 4},
		ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 4},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	record := []byte{192, 0, 2, 12, 0x00, 0x01, 0xd8, 0x24}

	d := dict.For(dict.DefaultVendor)
	flow, err := d.AppendFlow(nil, template, record)
	if err != nil {
		fmt.Println(err)
		return
	}
	group, _ := avp.Find(flow, dict.Flow, d.Vendor())
	for a, err := range avp.Scan(group.Data) {
		fmt.Printf("%d %x %v\n", a.Code, a.Data, err)
	}
	again, octets, err := d.ParseFlow(flow)
	fmt.Println(again.Fields, octets, err)
	// Output:
	// 65544 0001c000020c <nil>
	// 65537 000000000001d824 <nil>
	// 131074 010000000000000000010004 <nil>
	// [{8 0 4} {1 0 4}] [192 0 2 12 0 1 216 36] <nil>
}

// An accounting record becomes a whole Accounting-Request.
func ExampleDictionary_AppendRecord() {
	record := acct.Record{
		SessionID: "asm.isp.example;1790000000;1", Number: 1, Type: acct.Interim, User: "alice",
		Event: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC),
		Usage: acct.Usage{InputOctets: 120868, InputPackets: 99},
	}
	b := avp.AppendHeader(nil, avp.Header{
		Flags: avp.FlagRequest | avp.FlagProxiable, Command: avp.CommandAccounting,
		Application: avp.ApplicationAccounting, HopByHop: 1, EndToEnd: 1,
	})
	d := dict.For(dict.DefaultVendor)
	b = d.AppendRecord(b, &record, dict.Options{
		OriginHost: "asm.isp.example", OriginRealm: "isp.example", DestinationRealm: "home.example",
	})
	avp.SetLength(b)

	_, avps, err := avp.ParseMessage(b)
	if err != nil {
		fmt.Println(err)
		return
	}
	got, err := d.ParseRecord(avps)
	fmt.Println(got.Type, got.User, got.Usage.InputOctets, got.Realm, err)
	// Output: INTERIM alice 120868 home.example <nil>
}
