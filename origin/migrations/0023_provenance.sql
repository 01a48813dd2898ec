-- Where artifacts come from, as origin has attested it: one bundle for each source of an artifact in a site, and for each key.
CREATE TABLE provenances (
    site          TEXT NOT NULL,
    artifact      TEXT NOT NULL,           -- digest of the release's manifest
    source        TEXT NOT NULL,           -- which build, whose upload, which promotion
    key_id        TEXT NOT NULL,           -- the key that has signed
    project       TEXT NOT NULL,
    said          TEXT NOT NULL,           -- as it is shown to people
    manifest      TEXT NOT NULL,           -- digest of the referrer that holds the bundle
    manifest_size BIGINT NOT NULL,
    bundle        TEXT NOT NULL,           -- digest of the bundle
    bundle_size   BIGINT NOT NULL,
    used          BIGINT NOT NULL,         -- when a deployment last had it
    PRIMARY KEY (site, artifact, source, key_id)
);
CREATE INDEX provenances_by_artifact ON provenances (project, artifact, used);
CREATE INDEX provenances_by_manifest ON provenances (project, manifest);
