-- The edges of the fleet. Who was removed stays, so that origin's configuration alone does not bring it back.
CREATE TABLE edges (
    edge              TEXT PRIMARY KEY,
    region            TEXT NOT NULL,
    url               TEXT NOT NULL,
    admitted          TEXT NOT NULL,       -- config, token
    joined            BIGINT NOT NULL,
    account           TEXT,                -- public nkey of its NATS account; none for one of the configuration
    certificate_until BIGINT,
    removed           BIGINT
);
