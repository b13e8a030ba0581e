-- Signing keys for backends' tokens beside those for sessions, and API tokens.

ALTER TABLE signing_key ADD COLUMN algorithm TEXT NOT NULL DEFAULT 'HS256';

CREATE TABLE api_token (
    id       TEXT PRIMARY KEY,
    hash     BLOB NOT NULL UNIQUE,      -- SHA-256 of the token
    user_id  TEXT REFERENCES user (id) ON DELETE SET NULL,
    name     TEXT NOT NULL,
    scopes   TEXT NOT NULL,             -- one a line, as typed; empty: everything
    created  INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    seen     INTEGER NOT NULL,          -- last request; 0: none yet
    ended_at INTEGER,                   -- revoked, or its user is gone
    rev      INTEGER NOT NULL
) STRICT;
CREATE INDEX api_token_user ON api_token (user_id);
CREATE INDEX api_token_rev ON api_token (rev);
