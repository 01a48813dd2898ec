-- Portable SQL: the same statements are meant for SQLite and PostgreSQL.
-- Times are milliseconds since the Unix epoch. Names are the glossary's.

CREATE TABLE terms (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    epoch       BIGINT NOT NULL            -- the leading origin's term; every writing transaction checks it
);
INSERT INTO terms (id, epoch) VALUES (1, 0);

CREATE TABLE tokens (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    role        TEXT NOT NULL,             -- read, deploy, operate
    secret_hash TEXT NOT NULL UNIQUE,      -- sha256 of the secret; the secret itself is never stored
    created     BIGINT NOT NULL,
    used        BIGINT,
    revoked     BIGINT
);

CREATE TABLE projects (
    project     TEXT PRIMARY KEY,
    created     BIGINT NOT NULL,
    purge_at    BIGINT                     -- set when deleted
);

CREATE TABLE sites (
    site        TEXT PRIMARY KEY,          -- shop/production, shop/preview/42
    project     TEXT NOT NULL REFERENCES projects (project),
    created     BIGINT NOT NULL,
    closed      BIGINT                     -- a preview that ended
);

CREATE TABLE domains (
    host        TEXT PRIMARY KEY,          -- exact, or *.suffix
    project     TEXT NOT NULL,
    site        TEXT NOT NULL,
    added       BIGINT NOT NULL
);

-- What has been uploaded, per project: contents are never shared between projects.
CREATE TABLE packs (
    project     TEXT NOT NULL,
    digest      TEXT NOT NULL,
    media_type  TEXT NOT NULL,
    size        BIGINT NOT NULL,
    created     BIGINT NOT NULL,
    PRIMARY KEY (project, digest)
);

CREATE TABLE contents (
    project     TEXT NOT NULL,
    digest      TEXT NOT NULL,
    size        BIGINT NOT NULL,
    pack        TEXT NOT NULL,
    position    BIGINT NOT NULL,           -- offset in the pack
    length      BIGINT NOT NULL,
    encoding    TEXT NOT NULL,
    PRIMARY KEY (project, digest)
);
CREATE INDEX contents_by_pack ON contents (project, pack);

CREATE TABLE releases (
    site        TEXT NOT NULL,
    release_id  TEXT NOT NULL,
    artifact    TEXT NOT NULL,             -- digest of the manifest
    content     TEXT NOT NULL,             -- digest over paths, contents and types: the same content is the same release
    created     BIGINT NOT NULL,
    files       BIGINT NOT NULL,
    bytes       BIGINT NOT NULL,
    collected   BIGINT,
    PRIMARY KEY (site, release_id)
);
CREATE INDEX releases_by_content ON releases (site, content);
CREATE INDEX releases_by_artifact ON releases (artifact);

CREATE TABLE release_packs (
    site        TEXT NOT NULL,
    release_id  TEXT NOT NULL,
    digest      TEXT NOT NULL,             -- a blob of the release: manifest, config, index, pack
    PRIMARY KEY (site, release_id, digest)
);
CREATE INDEX release_packs_by_digest ON release_packs (digest);

CREATE TABLE deployments (
    project     TEXT NOT NULL,
    number      BIGINT NOT NULL,           -- counts up per project
    label       TEXT NOT NULL,             -- main/<number>, preview/<pull request>
    site        TEXT NOT NULL,
    release_id  TEXT NOT NULL,
    rollout     TEXT NOT NULL,
    by_whom     TEXT NOT NULL,
    created     BIGINT NOT NULL,
    PRIMARY KEY (project, number)
);
CREATE INDEX deployments_by_site ON deployments (site, number);

CREATE TABLE rollouts (
    rollout     TEXT PRIMARY KEY,
    site        TEXT NOT NULL,
    kind        TEXT NOT NULL,
    by_whom     TEXT NOT NULL,
    reason      TEXT,
    machine     TEXT NOT NULL,             -- the machine as JSON
    revision    BIGINT NOT NULL,
    started     BIGINT NOT NULL,
    changed     BIGINT NOT NULL,
    outcome     TEXT                       -- none while it runs
);
CREATE INDEX rollouts_by_site ON rollouts (site, started);
-- One rollout per site at a time.
CREATE UNIQUE INDEX rollouts_running ON rollouts (site) WHERE outcome IS NULL;

-- Which releases settled in a region, in the order in which a deployment brought them there.
CREATE TABLE settlements (
    site        TEXT NOT NULL,
    region      TEXT NOT NULL,
    release_id  TEXT NOT NULL,
    artifact    TEXT NOT NULL,
    position    BIGINT NOT NULL,           -- rises with each deployment that settles; a rollback does not move it
    settled     BIGINT NOT NULL,
    PRIMARY KEY (site, region, release_id)
);

CREATE TABLE region_sites (
    site        TEXT NOT NULL,
    region      TEXT NOT NULL,
    settled     TEXT,                      -- the release that settled last, also by a rollback: the baseline
    settled_artifact TEXT,
    hold_reason TEXT,
    hold_since  BIGINT,
    note        TEXT,                      -- the newest failure here
    PRIMARY KEY (site, region)
);

CREATE TABLE quarantines (
    site        TEXT NOT NULL,
    region      TEXT NOT NULL,
    release_id  TEXT NOT NULL,
    reason      TEXT NOT NULL,
    since       BIGINT NOT NULL,
    PRIMARY KEY (site, region, release_id)
);

-- Every routing record as it stands. A row is never deleted, so a generation is never used twice.
CREATE TABLE records (
    stream      TEXT NOT NULL,
    record_key  TEXT NOT NULL,
    generation  BIGINT NOT NULL,
    epoch       BIGINT NOT NULL,
    body        BLOB NOT NULL,
    removed     BIGINT,                    -- when it became a tombstone
    PRIMARY KEY (stream, record_key)
);

-- Records that changed and are not yet acknowledged by JetStream.
CREATE TABLE outbox (
    id          INTEGER PRIMARY KEY,
    stream      TEXT NOT NULL,
    record_key  TEXT NOT NULL
);

CREATE TABLE streams (
    stream      TEXT PRIMARY KEY,
    incarnation TEXT NOT NULL
);

CREATE TABLE audit (
    id          INTEGER PRIMARY KEY,
    at          BIGINT NOT NULL,
    by_whom     TEXT NOT NULL,
    action      TEXT NOT NULL,
    subject     TEXT NOT NULL,
    detail      TEXT
);
