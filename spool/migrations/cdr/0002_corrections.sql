-- Which earlier record a CDR amends: its Session-Id and number, whether the
-- usage is to be taken away, and why. An empty Session-Id and no credit: none.
ALTER TABLE cdr ADD COLUMN corrects TEXT NOT NULL DEFAULT '';
ALTER TABLE cdr ADD COLUMN corrects_number INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cdr ADD COLUMN credit INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cdr ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE conflict ADD COLUMN corrects TEXT NOT NULL DEFAULT '';
ALTER TABLE conflict ADD COLUMN corrects_number INTEGER NOT NULL DEFAULT 0;
ALTER TABLE conflict ADD COLUMN credit INTEGER NOT NULL DEFAULT 0;
ALTER TABLE conflict ADD COLUMN reason TEXT NOT NULL DEFAULT '';
