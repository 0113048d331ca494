package sim

import (
	"tollbridge/asm/acct"
)

// amounts are a row of the books.
type amounts struct{ received, mirrored, accounted, duplicate, suspended, rejected acct.Count }

func (t *truth) row(key acct.LedgerKey) *amounts {
	x := t.rows[key]
	if x == nil {
		x = &amounts{}
		t.rows[key] = x
	}
	return x
}

// account books a flow of which 1 or 2 sides are accounted.
func (x *amounts) account(n acct.Count, sides int) {
	x.accounted = x.accounted.Plus(n)
	if sides == 2 {
		x.accounted, x.mirrored = x.accounted.Plus(n), x.mirrored.Plus(n)
	}
}

func (f *flow) count() acct.Count {
	return acct.Count{Records: 1, Octets: f.forward.octets + f.backward.octets, Packets: f.forward.packets + f.backward.packets}
}
