-- When the first entry of a group arrived, Unix nanoseconds, so that groups can
-- be kept by age without reading them. Those of before look old.
ALTER TABLE journal_group ADD COLUMN time INTEGER NOT NULL DEFAULT 0;

-- Checkpoints at which the journal can be read again without what was trimmed
-- before (opening.go).
CREATE TABLE opening (
	position INTEGER PRIMARY KEY, -- entries behind it follow
	time     INTEGER NOT NULL,    -- the pipeline's clock, Unix nanoseconds
	data     BLOB NOT NULL        -- lines of JSON, zstd
);
