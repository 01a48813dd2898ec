-- The number of the push that a deployment comes from, if whoever deployed said so.
ALTER TABLE deployments ADD COLUMN push_seq BIGINT;

-- Times at which nothing is deployed to a project's production.
CREATE TABLE freezes (
    id          TEXT PRIMARY KEY,
    project     TEXT NOT NULL,
    starts      BIGINT NOT NULL,
    ends        BIGINT NOT NULL,
    reason      TEXT NOT NULL,
    by_whom     TEXT NOT NULL,
    created     BIGINT NOT NULL
);
CREATE INDEX freezes_by_project ON freezes (project, ends);

-- Who keeps others from deploying to a site.
CREATE TABLE locks (
    site        TEXT PRIMARY KEY,
    holder_id   TEXT NOT NULL,             -- the token's
    holder      TEXT NOT NULL,
    reason      TEXT NOT NULL,
    since       BIGINT NOT NULL,
    until       BIGINT                     -- none: until it is released
);
