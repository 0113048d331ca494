-- CDRs in order of arrival. The key is not unique: it finds candidates, and
-- the text decides (cdrkey.go).
CREATE TABLE cdr (
	id               INTEGER PRIMARY KEY,
	key              INTEGER NOT NULL,
	session_id       TEXT NOT NULL,
	number           INTEGER NOT NULL,
	type             INTEGER NOT NULL,
	user_name        TEXT NOT NULL,
	input_octets     INTEGER NOT NULL,
	output_octets    INTEGER NOT NULL,
	input_packets    INTEGER NOT NULL,
	output_packets   INTEGER NOT NULL,
	session_time     INTEGER NOT NULL, -- milliseconds
	event            INTEGER NOT NULL, -- Unix milliseconds
	at               INTEGER NOT NULL, -- arrival, Unix milliseconds
	multi_session_id TEXT NOT NULL,
	origin_host      TEXT NOT NULL,
	origin_realm     TEXT NOT NULL,
	retransmitted    INTEGER NOT NULL,
	content          BLOB NOT NULL,    -- digest of what makes up the record
	avps             BLOB NOT NULL     -- the request's AVPs as they came
);
CREATE INDEX cdr_key ON cdr (key);
-- Same Session-Id and number as the CDR named first, other content.
CREATE TABLE conflict (
	id               INTEGER PRIMARY KEY,
	first            INTEGER NOT NULL, -- cdr.id
	times            INTEGER NOT NULL, -- how often this content came
	session_id       TEXT NOT NULL,
	number           INTEGER NOT NULL,
	type             INTEGER NOT NULL,
	user_name        TEXT NOT NULL,
	input_octets     INTEGER NOT NULL,
	output_octets    INTEGER NOT NULL,
	input_packets    INTEGER NOT NULL,
	output_packets   INTEGER NOT NULL,
	session_time     INTEGER NOT NULL,
	event            INTEGER NOT NULL,
	at               INTEGER NOT NULL,
	multi_session_id TEXT NOT NULL,
	origin_host      TEXT NOT NULL,
	origin_realm     TEXT NOT NULL,
	retransmitted    INTEGER NOT NULL,
	content          BLOB NOT NULL,
	avps             BLOB NOT NULL
);
CREATE UNIQUE INDEX conflict_first ON conflict (first, content);
CREATE TABLE meta (
	name  TEXT PRIMARY KEY,
	value ANY NOT NULL
) WITHOUT ROWID;
