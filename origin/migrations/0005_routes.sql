-- Digest of the route table; none for a release that only serves files.
ALTER TABLE releases ADD COLUMN routes TEXT;
