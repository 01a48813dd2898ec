-- How far JetStream has acknowledged a stream: one that ends before this was rolled back.
ALTER TABLE streams ADD COLUMN acknowledged BIGINT NOT NULL DEFAULT 0;
