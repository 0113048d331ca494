-- Identities are kept by exporter, each of which has a floor of its own. Those
-- of before can't be told apart: the pipeline begins above them.
DROP INDEX identity_bucket;
DELETE FROM identity;
ALTER TABLE identity ADD COLUMN exporter TEXT NOT NULL DEFAULT '';
CREATE INDEX identity_bucket ON identity (exporter, bucket, level);

-- What operators ordered, by the position of its journal entry.
CREATE TABLE decision (
	position INTEGER PRIMARY KEY,
	at       INTEGER NOT NULL, -- Unix nanoseconds
	by       TEXT NOT NULL,
	what     TEXT NOT NULL,
	reason   TEXT NOT NULL,
	subject  TEXT NOT NULL,
	records  INTEGER NOT NULL,
	octets   INTEGER NOT NULL,
	packets  INTEGER NOT NULL
);
