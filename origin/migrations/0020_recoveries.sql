-- A database that was restored from a backup: until `done`, origin asks the edges what they hold, and writes nothing.
CREATE TABLE recoveries (
    restored    BIGINT PRIMARY KEY,        -- when
    made        BIGINT NOT NULL,           -- when the backup was
    wait_ms     BIGINT NOT NULL,           -- how long edges that do not answer are waited for
    done        BIGINT                     -- when what the edges hold was taken over
);
