-- Bills of materials: what builds say that their releases were made of, the newest for each artifact of a site.
CREATE TABLE bills (
    site          TEXT NOT NULL,
    artifact      TEXT NOT NULL,           -- digest of the release's manifest
    project       TEXT NOT NULL,
    manifest      TEXT NOT NULL,           -- digest of the referrer that holds the bill
    manifest_size BIGINT NOT NULL,
    bill          TEXT NOT NULL,           -- digest of the bill
    PRIMARY KEY (site, artifact)
);
CREATE INDEX bills_by_artifact ON bills (project, artifact);
CREATE INDEX bills_by_manifest ON bills (project, manifest);
