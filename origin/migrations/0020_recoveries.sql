-- A database that was restored from a backup: until `done`, origin asks the edges what they hold, and writes nothing.
CREATE TABLE recoveries (
    restored    BIGINT PRIMARY KEY,        -- when
    made        BIGINT NOT NULL,           -- when the backup was
    wait_ms     BIGINT NOT NULL,           -- how long edges that do not answer are waited for
    done        BIGINT                     -- when what the edges hold was taken over
);

-- Overrides of edges that the audit log has as begun and not as over: edges say what stands again and again.
CREATE TABLE local_overrides (
    edge        TEXT NOT NULL,
    site        TEXT NOT NULL,
    since       BIGINT NOT NULL,           -- by the edge's clock: with the edge and the site it tells one from another
    PRIMARY KEY (edge, site)
);
