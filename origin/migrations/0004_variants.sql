-- When origin first saw a content: the Last-Modified of files that have it.
ALTER TABLE contents ADD COLUMN seen BIGINT NOT NULL DEFAULT 0;
-- Digest of the encoded bytes, where they are a zstd frame that any browser can take as it is.
ALTER TABLE contents ADD COLUMN encoded TEXT;

-- Contents under a content coding. The encoded bytes are a content themselves: packed, moved and collected like any other.
CREATE TABLE variants (
    project     TEXT NOT NULL,
    content     TEXT NOT NULL,
    coding      TEXT NOT NULL,             -- br, zstd, gzip
    effort      TEXT NOT NULL,             -- quick, slow: the most that was tried
    variant     TEXT,                      -- digest of the encoded bytes; none when it is not worth it
    PRIMARY KEY (project, content, coding)
);
CREATE INDEX variants_by_variant ON variants (project, variant);
