-- Which origin leads, where several share one database. Who stands by takes over once `renewals` has not risen for as long
-- as a lease, by its own clock; the term in `terms` then keeps the one before from writing.
CREATE TABLE leader (
    id          BIGINT PRIMARY KEY CHECK (id = 1),
    address     TEXT,                      -- where others reach it; none once it let go
    renewals    BIGINT NOT NULL
);
INSERT INTO leader (id, address, renewals) VALUES (1, NULL, 0);

-- Who stands by: each says so now and then, and is forgotten after a while without a word.
CREATE TABLE standbys (
    address     TEXT PRIMARY KEY,
    beats       BIGINT NOT NULL
);
