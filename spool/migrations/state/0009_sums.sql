-- Checksums (sum.go) of the books and of what became of records; NULL in rows
-- of before.
ALTER TABLE ledger ADD COLUMN sum INTEGER;
ALTER TABLE settled ADD COLUMN sum INTEGER;
