-- Answers of requests that carried an idempotency key: asked again, the same answer and no second change.
CREATE TABLE idempotency (
    caller      TEXT NOT NULL,             -- id of the token
    request_key TEXT NOT NULL,
    request     TEXT NOT NULL,             -- digest of what was asked, so that a key is not used for two things
    answer      TEXT NOT NULL,             -- as JSON
    created     BIGINT NOT NULL,
    PRIMARY KEY (caller, request_key)
);
CREATE INDEX idempotency_by_age ON idempotency (created);
