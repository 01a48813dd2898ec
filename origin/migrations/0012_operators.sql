-- Who set a hold, and until when; one without an end lasts until it is lifted.
ALTER TABLE region_sites ADD COLUMN hold_by TEXT;
ALTER TABLE region_sites ADD COLUMN hold_until BIGINT;
ALTER TABLE quarantines ADD COLUMN by_whom TEXT;

-- A deployment that nobody asked for by hand, and the held regions that it left alone, separated by spaces.
ALTER TABLE deployments ADD COLUMN automatic BIGINT NOT NULL DEFAULT 0;
ALTER TABLE deployments ADD COLUMN skipped TEXT;

-- The audit log is a chain: each entry's hash covers the entry before it. Entries from before the chain have none.
ALTER TABLE audit ADD COLUMN actor TEXT;     -- id of the token; `origin` for what no person did
ALTER TABLE audit ADD COLUMN project TEXT;
ALTER TABLE audit ADD COLUMN reason TEXT;
ALTER TABLE audit ADD COLUMN request TEXT;   -- id of the request
ALTER TABLE audit ADD COLUMN hash TEXT;
CREATE INDEX audit_by_project ON audit (project, id);
CREATE TABLE audit_head (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    number      BIGINT NOT NULL,           -- of the newest entry
    hash        TEXT NOT NULL              -- of it; empty before the first
);
INSERT INTO audit_head (id, number, hash) SELECT 1, COALESCE(MAX(id), 0), '' FROM audit;

-- What happened, for others: written in the transaction that made it happen, and kept for a while.
CREATE TABLE events (
    event       TEXT PRIMARY KEY,
    number      BIGINT NOT NULL UNIQUE,    -- in the order in which they happened
    at          BIGINT NOT NULL,
    kind        TEXT NOT NULL,             -- deployment.settled, hold.set
    project     TEXT,
    body        TEXT NOT NULL,             -- JSON, as it is sent
    published   BIGINT                     -- when JetStream acknowledged it
);
CREATE INDEX events_by_published ON events (published, number);

CREATE TABLE webhooks (
    webhook     TEXT PRIMARY KEY,
    url         TEXT NOT NULL,
    project     TEXT,                      -- none: every project's
    events      TEXT NOT NULL,             -- patterns separated by spaces; empty: every kind
    mark        TEXT NOT NULL,             -- the start of the secret's digest; the secret itself is derived, and not stored
    by_whom     TEXT NOT NULL,
    created     BIGINT NOT NULL,
    failing     BIGINT,                    -- since when nothing was delivered
    disabled    BIGINT,
    disabled_why TEXT,
    removed     BIGINT
);

CREATE TABLE deliveries (
    delivery    TEXT PRIMARY KEY,
    webhook     TEXT NOT NULL REFERENCES webhooks (webhook),
    event       TEXT NOT NULL REFERENCES events (event),
    number      BIGINT NOT NULL,           -- of the event: the order in which they are sent
    state       TEXT NOT NULL,             -- pending, delivered, failed, dropped
    attempts    BIGINT NOT NULL DEFAULT 0,
    created     BIGINT NOT NULL,           -- when it was to be sent first, or again by hand
    next_at     BIGINT,                    -- while it is pending
    tried       BIGINT,                    -- the newest attempt
    status      BIGINT,                    -- of its response
    error       TEXT,
    elapsed_ms  BIGINT
);
CREATE INDEX deliveries_due ON deliveries (state, next_at);
CREATE INDEX deliveries_by_webhook ON deliveries (webhook, state, number);
CREATE INDEX deliveries_by_event ON deliveries (event);
