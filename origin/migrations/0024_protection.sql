-- Who may see a project's sites of one kind: everybody where there is no row, or it is off.
CREATE TABLE protections (
    project       TEXT NOT NULL,
    kind          TEXT NOT NULL,           -- production, preview
    is_on         BIGINT NOT NULL,
    secret        TEXT NOT NULL,           -- half of the key of its passes, which records carry
    password      TEXT,                    -- what is kept of the password, as JSON
    exempt        TEXT NOT NULL,           -- rules for paths that are answered unasked, as JSON
    revision      BIGINT NOT NULL,         -- rises with every change that ends passes
    by_whom       TEXT NOT NULL,
    changed       BIGINT NOT NULL,
    PRIMARY KEY (project, kind)
);

-- Days after its newest deployment that a preview is taken down; 0 is never.
ALTER TABLE links ADD COLUMN preview_days BIGINT NOT NULL DEFAULT 30;
