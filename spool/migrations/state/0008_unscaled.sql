-- Data Records of samplers that nothing was said of.
ALTER TABLE ledger ADD COLUMN unscaled INTEGER NOT NULL DEFAULT 0;
