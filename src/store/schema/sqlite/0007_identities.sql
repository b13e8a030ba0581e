-- Who providers say somebody is: sign-in through Google, GitHub and others.

CREATE TABLE identity (
    provider       TEXT NOT NULL,               -- name of the [[provider]]
    subject        TEXT NOT NULL,               -- the person there; compared byte by byte
    user_id        TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    issuer         TEXT,                        -- pinned at the first sign-in; NULL until then
    email          TEXT,                        -- what the provider says, never a key
    email_verified INTEGER NOT NULL DEFAULT 0,
    login          TEXT NOT NULL DEFAULT '',    -- user name there
    groups         TEXT NOT NULL DEFAULT '',    -- mapped to ours, sorted, joined by commas
    their_groups   TEXT NOT NULL DEFAULT '',    -- the provider's names that these were mapped from, a line each
    extra          TEXT NOT NULL DEFAULT '',    -- further ids there, as name=value lines
    created        INTEGER NOT NULL,
    seen           INTEGER NOT NULL DEFAULT 0,  -- last sign-in; 0: none yet
    rev            INTEGER NOT NULL,
    PRIMARY KEY (provider, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX identity_user ON identity (user_id);
CREATE INDEX identity_rev ON identity (rev);

ALTER TABLE user ADD COLUMN email_proved INTEGER NOT NULL DEFAULT 0;    -- its owner showed that the address is theirs, or an administrator set it

ALTER TABLE session ADD COLUMN provider TEXT;   -- the identity that it began with; NULL: a password or a link
ALTER TABLE session ADD COLUMN subject  TEXT;
ALTER TABLE session ADD COLUMN idp_sid  TEXT;   -- the provider's own session
ALTER TABLE session ADD COLUMN authenticated INTEGER NOT NULL DEFAULT 0;    -- when the person proved who they are; 0: not known
CREATE INDEX session_identity ON session (provider, subject) WHERE provider IS NOT NULL;
CREATE INDEX session_idp_sid ON session (provider, idp_sid) WHERE idp_sid IS NOT NULL;
