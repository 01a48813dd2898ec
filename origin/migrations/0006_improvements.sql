-- Digest of the manifest of a release's improvement: smaller variants, made after it went out. None until that is done.
ALTER TABLE releases ADD COLUMN improvement TEXT;
