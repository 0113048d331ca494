-- Finds the settled records whose time has come; quarantined ones (state 2)
-- stay.
CREATE INDEX settled_done ON settled (at) WHERE state <> 2;
