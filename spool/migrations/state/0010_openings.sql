-- Checkpoints at which the journal can be read again without what was trimmed
-- before (opening.go). They lay in journal.db.
CREATE TABLE opening (
	position INTEGER PRIMARY KEY, -- entries behind it follow
	time     INTEGER NOT NULL,    -- the pipeline's clock, Unix nanoseconds
	data     BLOB NOT NULL        -- lines of JSON, zstd
);
