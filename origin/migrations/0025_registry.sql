-- Which artifacts the registry of `[registry]` has, and which wait to be pushed there. A row for each artifact of a project, whether or
-- not there is such a registry: what was made before one was configured is pushed, too.
CREATE TABLE pushes (
    project     TEXT NOT NULL,
    artifact    TEXT NOT NULL,             -- digest of the manifest
    wanted      BIGINT NOT NULL,           -- rises with each change: a tag, a referrer, something the registry has lost
    done        BIGINT NOT NULL,           -- what of it the registry has
    registry    TEXT,                      -- the registry that has it; none has before the first push
    pushed      BIGINT,                    -- when it had all of it first
    attempts    BIGINT NOT NULL,
    next_at     BIGINT NOT NULL,
    error       TEXT,                      -- why the last attempt failed
    PRIMARY KEY (project, artifact)
);
CREATE INDEX pushes_due ON pushes (next_at);

INSERT INTO pushes (project, artifact, wanted, done, attempts, next_at)
SELECT DISTINCT sites.project, releases.artifact, 1, 0, 0, 0 FROM releases
JOIN sites ON sites.site = releases.site WHERE releases.collected IS NULL;
