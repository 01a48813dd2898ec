-- How long the release's gates may take on an edge, in milliseconds: its prepare deadline grows by it.
ALTER TABLE releases ADD COLUMN gates_ms BIGINT NOT NULL DEFAULT 0;
CREATE INDEX releases_by_id ON releases (release_id);
