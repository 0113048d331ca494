package users_test

import (
	"fmt"
	"net/netip"
	"time"

	"tollbridge/asm/users"
)

func ExampleTable() {
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	var table users.Table
	table.Replace("users.csv", []users.Binding{
		{Prefix: netip.MustParsePrefix("192.0.2.0/24"), User: "office"},
		{Prefix: netip.MustParsePrefix("192.0.2.7/32"), User: "alice", From: noon},
	}, noon.UnixMilli())

	a := netip.MustParseAddr("192.0.2.7")
	fmt.Println(table.Lookup(a, noon.UnixMilli()-1).User())
	fmt.Println(table.Lookup(a, noon.UnixMilli()).User())
	// Output:
	// office
	// alice
}
