-- How an edge came in that joined by a token.
ALTER TABLE edges ADD COLUMN nats_user TEXT;      -- public nkey of its user at NATS
ALTER TABLE edges ADD COLUMN certificate TEXT;    -- serial of its certificate, in hex
ALTER TABLE edges ADD COLUMN join_token TEXT;     -- id of the join token that admitted it
ALTER TABLE edges ADD COLUMN read_token TEXT;     -- id of the token that it reads artifacts with

CREATE TABLE join_tokens (
    id                TEXT PRIMARY KEY,
    secret_hash       TEXT NOT NULL UNIQUE, -- sha256 of the secret; the secret itself is never stored
    region            TEXT NOT NULL,
    edge              TEXT,                -- the only edge that it admits
    uses              BIGINT NOT NULL,
    used              BIGINT NOT NULL,
    created           BIGINT NOT NULL,
    expires           BIGINT NOT NULL,
    by_whom           TEXT NOT NULL,
    revoked           BIGINT
);

-- Accounts of edges that were removed. NATS is told of them for ever, since a server may have been away.
CREATE TABLE ended_accounts (
    account           TEXT PRIMARY KEY,    -- public nkey
    edge              TEXT NOT NULL,
    ended             BIGINT NOT NULL
);
