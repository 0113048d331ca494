-- Groups of journal entries, found by their last position. Data is as
-- group.go encodes it, checksum included.
CREATE TABLE journal_group (
	last  INTEGER PRIMARY KEY,
	first INTEGER NOT NULL,
	data  BLOB NOT NULL
);
-- Groups whose checksum failed, set aside for people.
CREATE TABLE damaged (
	last   INTEGER PRIMARY KEY,
	first  INTEGER NOT NULL,
	found  INTEGER NOT NULL, -- Unix seconds
	reason TEXT NOT NULL,
	data   BLOB NOT NULL
);
CREATE TABLE meta (
	name  TEXT PRIMARY KEY,
	value ANY NOT NULL
) WITHOUT ROWID;
