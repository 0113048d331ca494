-- How accounting records are written for their realms: those of the outbox
-- from an ID on, until the next row. A record is sent again as it was first.
CREATE TABLE profiles (
	first      INTEGER PRIMARY KEY, -- record ID
	definition BLOB NOT NULL
) STRICT;
