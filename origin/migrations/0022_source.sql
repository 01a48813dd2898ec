-- The repository of a project: where its source is, and how it is built.
CREATE TABLE links (
    project       TEXT PRIMARY KEY,
    url           TEXT NOT NULL,           -- as git fetches from it, without credentials
    repository    TEXT NOT NULL,           -- its path at the provider: owner/name
    provider      TEXT NOT NULL,           -- github, gitlab, bitbucket, git
    api           TEXT,                    -- the provider's API; none where there is none
    branch        TEXT NOT NULL,           -- what is merged there goes to production
    settings      TEXT NOT NULL,           -- how it is built, as JSON
    private       BIGINT NOT NULL,
    allow_uploads BIGINT NOT NULL,         -- folders may be deployed to production, too
    forks         TEXT NOT NULL,           -- approve, block, build
    credential    TEXT,                    -- sealed: what git and the provider's API are shown
    secret        TEXT NOT NULL,           -- sealed: what its webhooks are signed with
    secret_before TEXT,                    -- sealed: the one before, which counts for a while
    before_until  BIGINT,
    by_whom       TEXT NOT NULL,
    created       BIGINT NOT NULL
);

-- What the repository last said of a site: the newest commit, and how many came.
CREATE TABLE heads (
    site          TEXT PRIMARY KEY,
    project       TEXT NOT NULL,
    commit_id     TEXT,
    push_seq      BIGINT NOT NULL,
    changed       BIGINT NOT NULL,
    closed        BIGINT,                  -- when its pull request was
    remark        TEXT                     -- id of the one comment at the pull request
);
-- Commits that were a site's head, or were passed over: told of again, they change nothing.
CREATE TABLE head_commits (
    site          TEXT NOT NULL,
    commit_id     TEXT NOT NULL,
    seen          BIGINT NOT NULL,
    PRIMARY KEY (site, commit_id)
);
-- Deliveries of providers' webhooks that had an effect, so that none has one twice.
CREATE TABLE hook_deliveries (
    project       TEXT NOT NULL,
    delivery      TEXT NOT NULL,
    at            BIGINT NOT NULL,
    PRIMARY KEY (project, delivery)
);
CREATE INDEX hook_deliveries_by_age ON hook_deliveries (at);

-- Variables: a revision never changes, and names the version of each value.
CREATE TABLE env_revisions (
    project       TEXT NOT NULL,
    kind          TEXT NOT NULL,           -- production, preview
    revision      BIGINT NOT NULL,
    created       BIGINT NOT NULL,
    by_whom       TEXT NOT NULL,
    PRIMARY KEY (project, kind, revision)
);
CREATE TABLE env_values (
    project       TEXT NOT NULL,
    kind          TEXT NOT NULL,
    name          TEXT NOT NULL,
    version       BIGINT NOT NULL,
    secret        BIGINT NOT NULL,
    sealed        TEXT NOT NULL,
    bytes         BIGINT NOT NULL,         -- of the value
    created       BIGINT NOT NULL,
    by_whom       TEXT NOT NULL,
    PRIMARY KEY (project, kind, name, version)
);
CREATE TABLE env_members (
    project       TEXT NOT NULL,
    kind          TEXT NOT NULL,
    revision      BIGINT NOT NULL,
    name          TEXT NOT NULL,
    version       BIGINT NOT NULL,
    PRIMARY KEY (project, kind, revision, name)
);

CREATE TABLE builds (
    build         TEXT PRIMARY KEY,
    project       TEXT NOT NULL,
    number        BIGINT NOT NULL,         -- counts up per project
    site          TEXT NOT NULL,
    commit_id     TEXT NOT NULL,
    url           TEXT NOT NULL,           -- what is fetched from
    reference     TEXT,
    trust         TEXT NOT NULL,           -- fork, branch, default
    settings      TEXT NOT NULL,           -- as JSON: as they were when it was asked for
    env_revision  BIGINT,                  -- the variables it gets; fixed when it is first claimed
    push_seq      BIGINT NOT NULL,
    state         TEXT NOT NULL,           -- waiting, queued, claimed, succeeded, failed, cancelled
    step          TEXT,                    -- in which part it failed
    reason        TEXT,
    worker        TEXT,
    worker_token  TEXT,                    -- id of the token it was claimed with
    until         BIGINT,                  -- when it is taken from a silent worker
    attempts      BIGINT NOT NULL,
    queued        BIGINT,                  -- when its message went to the queue
    framework     TEXT,
    deployment    BIGINT,
    log_bytes     BIGINT NOT NULL,
    log_dropped   BIGINT NOT NULL,
    by_whom       TEXT NOT NULL,
    created       BIGINT NOT NULL,
    started       BIGINT,
    ended         BIGINT
);
CREATE INDEX builds_by_project ON builds (project, number);
CREATE INDEX builds_by_site ON builds (site, number);
CREATE INDEX builds_by_state ON builds (state, until);

CREATE TABLE build_lines (
    build         TEXT NOT NULL,
    attempt       BIGINT NOT NULL,         -- whoever takes a build over begins to count anew
    seq           BIGINT NOT NULL,
    at            BIGINT NOT NULL,
    step          TEXT NOT NULL,
    line          TEXT NOT NULL,
    PRIMARY KEY (build, attempt, seq)
);

-- What the provider is still to be told of a build.
CREATE TABLE feedback (
    build         TEXT PRIMARY KEY,
    project       TEXT NOT NULL,
    wanted        BIGINT NOT NULL,         -- rises with each change
    told          BIGINT NOT NULL,         -- what of it the provider was told
    attempts      BIGINT NOT NULL,
    next_at       BIGINT NOT NULL,
    error         TEXT
);
CREATE INDEX feedback_due ON feedback (next_at);

-- Where a deployment's files come from.
ALTER TABLE deployments ADD COLUMN build TEXT;
ALTER TABLE deployments ADD COLUMN commit_id TEXT;
-- The revision of the variables that a release has; none where there are no variables.
ALTER TABLE releases ADD COLUMN env_revision BIGINT;
