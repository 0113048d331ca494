package spool

import (
	"context"
	"fmt"

	"tollbridge/asm/acct"
)

// takeBack takes from what the ledger has as acknowledged the amounts of
// records that are pending again, since what became of them was lost: else they
// would stand in the books twice, and would once more with each new answer. It
// runs within a transaction.
//
// What is acknowledged too much is by how much a row of the ledger comes to
// more than was accounted, but not more than is pending. Where anything else
// that the books are drawn up from can't be read, that is not known, and what
// was lost would be hidden: then all stays as it is, and an audit names the row.
// So do the rows that there were when a salvage lost amounts.
func (w *writer) takeBack(ctx context.Context) error {
	books, problems, err := drawUp(ctx, w.conn)
	if err != nil {
		return err
	}
	lost, err := metaNumber(ctx, w.conn, metaAmountsLost)
	if err != nil {
		return err
	}
	if len(problems) > 0 {
		w.log.Error("what is acknowledged can't be set right, as other amounts are damaged too: the books will not balance", "problems", problems)
		return nil
	}
	for _, b := range books {
		back := b.excess()
		if b.damage != nil || b.unknown || back.IsZero() {
			continue
		}
		if lost == 1 || lost != 0 && b.Interval <= lost {
			w.log.Error("what is acknowledged can't be set right, as a salvage has lost amounts of then: the books will not balance",
				"exporter", b.Exporter, "domain", b.Domain, "interval", b.Interval)
			continue
		}
		b.Acknowledged = b.Acknowledged.Minus(back)
		c, k := b.Acknowledged, b.LedgerKey
		err := w.exec(`UPDATE ledger SET acknowledged_records = ?, acknowledged_octets = ?, acknowledged_packets = ?, sum = ?
			WHERE exporter = ? AND domain = ? AND interval = ?`, integer(c.Records), integer(c.Octets), integer(c.Packets),
			(ledgerSum(&b.amount)+ledgerPlace(k))&ledgerBits, k.Exporter, int64(k.Domain), k.Interval)
		if err != nil {
			return fmt.Errorf("ledger: %w", err)
		}
		w.log.Warn("amounts are taken back from what is acknowledged: what became of their records was lost, and they are pending again",
			"exporter", k.Exporter, "domain", k.Domain, "interval", k.Interval, "records", back.Records, "octets", back.Octets, "packets", back.Packets)
	}
	return nil
}

// excess returns by how much more of a row is acknowledged than can be, as far
// as as much is pending.
func (b *bookRow) excess() acct.Count {
	all := b.open.Plus(b.pending).Plus(b.Acknowledged).Plus(b.quarantined)
	of := func(all, accounted, pending, acknowledged uint64) uint64 {
		return min(all-min(all, accounted), pending, acknowledged)
	}
	return acct.Count{
		Records: of(all.Records, b.Accounted.Records, b.pending.Records, b.Acknowledged.Records),
		Octets:  of(all.Octets, b.Accounted.Octets, b.pending.Octets, b.Acknowledged.Octets),
		Packets: of(all.Packets, b.Accounted.Packets, b.pending.Packets, b.Acknowledged.Packets),
	}
}
