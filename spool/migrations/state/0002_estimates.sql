-- What of the accounted amounts is scaled from sampled packets, and what the
-- numbers of lost records are worth.
ALTER TABLE ledger ADD COLUMN estimated_records INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger ADD COLUMN estimated_octets INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger ADD COLUMN estimated_packets INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger ADD COLUMN lost_estimated INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger ADD COLUMN lost_suspect INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger ADD COLUMN restarts INTEGER NOT NULL DEFAULT 0;
