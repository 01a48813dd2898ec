-- The newest version of a site record that each edge reads, as it last said. Origin writes the oldest of them.
CREATE TABLE edge_versions (
    edge        TEXT PRIMARY KEY,
    region      TEXT NOT NULL,
    site_record BIGINT NOT NULL
);
CREATE INDEX edge_versions_by_region ON edge_versions (region);

-- Visitors of a site who get a release of their own.
CREATE TABLE pins (
    site        TEXT NOT NULL,
    label       TEXT NOT NULL,
    release_id  TEXT NOT NULL,
    artifact    TEXT NOT NULL,
    kind        TEXT NOT NULL,             -- label, header, cookie: what a visitor can show besides the label
    name        TEXT NOT NULL,             -- of the header or cookie, else empty
    value       TEXT NOT NULL,
    by_whom     TEXT NOT NULL,
    reason      TEXT,
    since       BIGINT NOT NULL,
    PRIMARY KEY (site, label)
);

-- What edges sign visitors' cookies with: hex. Every edge gets the same.
CREATE TABLE visitor_keys (
    id          TEXT PRIMARY KEY,
    secret      TEXT NOT NULL,
    created     BIGINT NOT NULL
);
