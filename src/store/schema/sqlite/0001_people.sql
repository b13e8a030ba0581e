-- People, their sessions, and what guards them. Times are Unix seconds. `rev` numbers the last
-- change of a row; a running gateway reads what is above the last number it has seen.

CREATE TABLE counter (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO counter (name, value) VALUES ('rev', 0), ('user_id', 0);

CREATE TABLE user (
    id       TEXT PRIMARY KEY,
    email    TEXT NOT NULL UNIQUE COLLATE NOCASE,
    name     TEXT NOT NULL,
    picture  TEXT NOT NULL,
    groups   TEXT NOT NULL,             -- sorted, joined by commas; group names have none
    password TEXT,                      -- PHC string; NULL: nobody can sign in with a password
    disabled INTEGER NOT NULL DEFAULT 0,
    created  INTEGER NOT NULL,
    rev      INTEGER NOT NULL
) STRICT;
CREATE INDEX user_rev ON user (rev);

CREATE TABLE session (
    id         TEXT PRIMARY KEY,
    user_id    TEXT REFERENCES user (id) ON DELETE SET NULL,
    created    INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    seen       INTEGER NOT NULL,
    remember   INTEGER NOT NULL,
    address    TEXT NOT NULL,
    user_agent TEXT NOT NULL,
    ended_at   INTEGER,                 -- signed out, revoked, or its user is gone
    rev        INTEGER NOT NULL
) STRICT;
CREATE INDEX session_user ON session (user_id);
CREATE INDEX session_rev ON session (rev);
CREATE INDEX session_expires ON session (expires);

CREATE TABLE signing_key (
    kid     TEXT PRIMARY KEY,
    secret  BLOB NOT NULL,
    created INTEGER NOT NULL,
    retired INTEGER,                    -- signs nothing any more; verifies for a while
    rev     INTEGER NOT NULL
) STRICT;

CREATE TABLE link (
    hash    BLOB PRIMARY KEY,           -- SHA-256 of the token
    kind    TEXT NOT NULL CHECK (kind IN ('first', 'invite', 'reset')),
    user_id TEXT REFERENCES user (id) ON DELETE CASCADE,
    email   TEXT,
    groups  TEXT NOT NULL DEFAULT '',
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT;
CREATE INDEX link_user ON link (user_id);

CREATE TABLE device (
    hash    BLOB NOT NULL,              -- SHA-256 of the device cookie
    user_id TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    seen    INTEGER NOT NULL,
    PRIMARY KEY (hash, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX device_user ON device (user_id, seen);

CREATE TABLE attempt (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL,                 -- what is counted: account:..., address:..., device:..., user:...
    at   INTEGER NOT NULL
) STRICT;
CREATE INDEX attempt_name ON attempt (name, at);
CREATE INDEX attempt_at ON attempt (at);

CREATE TABLE ban (
    name  TEXT PRIMARY KEY,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    event      TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    email      TEXT NOT NULL,
    address    TEXT NOT NULL,
    request_id TEXT NOT NULL,
    detail     TEXT NOT NULL
) STRICT;
CREATE INDEX audit_at ON audit (at);
