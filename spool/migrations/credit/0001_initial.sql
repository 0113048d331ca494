-- What is a single number.
CREATE TABLE meta (
	name  TEXT PRIMARY KEY,
	value INTEGER NOT NULL
) WITHOUT ROWID;

-- Credit-control sessions, by the Session-Id of what they account for.
CREATE TABLE session (
	key   TEXT PRIMARY KEY,
	state BLOB NOT NULL
) WITHOUT ROWID;
