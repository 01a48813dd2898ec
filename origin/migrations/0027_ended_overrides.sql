-- Overrides of edges of which the audit log has the end: edges say for a week what is over.
CREATE TABLE ended_overrides (
    edge        TEXT NOT NULL,
    site        TEXT NOT NULL,
    since       BIGINT NOT NULL,           -- by the edge's clock: with the edge and the site it tells one from another
    noted       BIGINT NOT NULL,           -- when, by origin's clock
    PRIMARY KEY (edge, site, since)
);
