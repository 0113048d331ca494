-- Checksums (sum.go); NULL in rows of before.
ALTER TABLE state ADD COLUMN sum INTEGER;
ALTER TABLE suspended ADD COLUMN sum INTEGER;

-- Pages of the outbox that held damaged records, as they were found.
CREATE TABLE damaged (
	last   INTEGER PRIMARY KEY,
	first  INTEGER NOT NULL,
	found  INTEGER NOT NULL, -- Unix seconds
	reason TEXT NOT NULL,
	data   BLOB              -- NULL if not even that can be read
);
