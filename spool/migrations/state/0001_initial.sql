CREATE TABLE meta (
	name  TEXT PRIMARY KEY,
	value ANY NOT NULL
) WITHOUT ROWID;

-- User sessions at the checkpoint; data is as session.go encodes it.
CREATE TABLE session (
	id   INTEGER PRIMARY KEY,
	data BLOB NOT NULL
);

-- Named values of the pipeline.
CREATE TABLE state (
	kind  TEXT NOT NULL,
	key   TEXT NOT NULL,
	value BLOB NOT NULL,
	PRIMARY KEY (kind, key)
) WITHOUT ROWID;

-- Identities of the dedup windows, 16 octets each. A checkpoint appends rows
-- of level 0; many of one level are merged into one of the next.
CREATE TABLE identity (
	id     INTEGER PRIMARY KEY,
	bucket INTEGER NOT NULL, -- Unix seconds
	level  INTEGER NOT NULL,
	data   BLOB NOT NULL
);
CREATE INDEX identity_bucket ON identity (bucket, level);

CREATE TABLE suspended (
	id       INTEGER PRIMARY KEY,
	exporter TEXT NOT NULL,
	domain   INTEGER NOT NULL,
	interval INTEGER NOT NULL, -- Unix seconds
	records  INTEGER NOT NULL,
	octets   INTEGER NOT NULL,
	packets  INTEGER NOT NULL,
	reason   TEXT NOT NULL,
	since    INTEGER NOT NULL, -- Unix nanoseconds
	flow_end INTEGER NOT NULL, -- Unix milliseconds
	source   TEXT NOT NULL,
	position INTEGER NOT NULL, -- journal
	flow     BLOB NOT NULL
);

-- Running sums by exporter, Observation Domain and interval of arrival. A sum
-- that would not fit stays at 2^63-1 and never becomes a float.
CREATE TABLE ledger (
	exporter             TEXT NOT NULL,
	domain               INTEGER NOT NULL,
	interval             INTEGER NOT NULL, -- Unix seconds
	received_records     INTEGER NOT NULL DEFAULT 0,
	received_octets      INTEGER NOT NULL DEFAULT 0,
	received_packets     INTEGER NOT NULL DEFAULT 0,
	mirrored_records     INTEGER NOT NULL DEFAULT 0,
	mirrored_octets      INTEGER NOT NULL DEFAULT 0,
	mirrored_packets     INTEGER NOT NULL DEFAULT 0,
	accounted_records    INTEGER NOT NULL DEFAULT 0,
	accounted_octets     INTEGER NOT NULL DEFAULT 0,
	accounted_packets    INTEGER NOT NULL DEFAULT 0,
	duplicate_records    INTEGER NOT NULL DEFAULT 0,
	duplicate_octets     INTEGER NOT NULL DEFAULT 0,
	duplicate_packets    INTEGER NOT NULL DEFAULT 0,
	suspended_records    INTEGER NOT NULL DEFAULT 0,
	suspended_octets     INTEGER NOT NULL DEFAULT 0,
	suspended_packets    INTEGER NOT NULL DEFAULT 0,
	resumed_records      INTEGER NOT NULL DEFAULT 0,
	resumed_octets       INTEGER NOT NULL DEFAULT 0,
	resumed_packets      INTEGER NOT NULL DEFAULT 0,
	rejected_records     INTEGER NOT NULL DEFAULT 0,
	rejected_octets      INTEGER NOT NULL DEFAULT 0,
	rejected_packets     INTEGER NOT NULL DEFAULT 0,
	skipped_records      INTEGER NOT NULL DEFAULT 0,
	skipped_octets       INTEGER NOT NULL DEFAULT 0,
	skipped_packets      INTEGER NOT NULL DEFAULT 0,
	acknowledged_records INTEGER NOT NULL DEFAULT 0,
	acknowledged_octets  INTEGER NOT NULL DEFAULT 0,
	acknowledged_packets INTEGER NOT NULL DEFAULT 0,
	undecoded_messages   INTEGER NOT NULL DEFAULT 0,
	undecoded_octets     INTEGER NOT NULL DEFAULT 0,
	decoded_messages     INTEGER NOT NULL DEFAULT 0,
	decoded_octets       INTEGER NOT NULL DEFAULT 0,
	lost                 INTEGER NOT NULL DEFAULT 0,
	lost_found           INTEGER NOT NULL DEFAULT 0,
	PRIMARY KEY (exporter, domain, interval)
) WITHOUT ROWID;

-- The outbox: pages of accounting records (page.go), found by their last ID.
CREATE TABLE record_page (
	last  INTEGER PRIMARY KEY,
	first INTEGER NOT NULL,
	count INTEGER NOT NULL,
	data  BLOB NOT NULL
);
-- Ranges of record IDs settled by the same answer. Ranges never overlap; a
-- record in none of them is pending.
CREATE TABLE settled (
	last   INTEGER PRIMARY KEY,
	first  INTEGER NOT NULL,
	state  INTEGER NOT NULL, -- acct.DeliveryState
	result INTEGER NOT NULL,
	peer   TEXT NOT NULL,
	reason TEXT NOT NULL,
	at     INTEGER NOT NULL  -- Unix seconds
);
-- Ranges of record IDs of which a copy may have been sent.
CREATE TABLE sent (
	last  INTEGER PRIMARY KEY,
	first INTEGER NOT NULL
);
-- Pending records that had an error answer: each further sending is a new
-- request with an End-to-End Identifier of its own.
CREATE TABLE retry (
	id         INTEGER PRIMARY KEY,
	attempts   INTEGER NOT NULL,
	end_to_end INTEGER NOT NULL,
	sent       INTEGER NOT NULL, -- a copy of this request may have been sent
	result     INTEGER NOT NULL, -- of the latest answer, as its peer and reason
	peer       TEXT NOT NULL,
	reason     TEXT NOT NULL,
	at         INTEGER NOT NULL
);
-- INTERIMs that are or were quarantined, until they settle: a later record of
-- their session covers them.
CREATE TABLE held (
	id         INTEGER PRIMARY KEY,
	session_id TEXT NOT NULL,
	number     INTEGER NOT NULL,
	covered    INTEGER NOT NULL -- requeued, and covered since
);
