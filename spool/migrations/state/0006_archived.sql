-- Ranges of settled records that are in the archive (package spool/archive).
CREATE TABLE archived (
	last  INTEGER PRIMARY KEY,
	first INTEGER NOT NULL
);
