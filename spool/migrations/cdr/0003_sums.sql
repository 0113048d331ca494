-- Checksums of what bills are made of (sum.go); NULL in rows of before.
ALTER TABLE cdr ADD COLUMN sum INTEGER;
