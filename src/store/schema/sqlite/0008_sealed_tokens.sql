-- Tokens of providers, sealed: only where sign-out at the provider, rechecks or an app need them.

CREATE TABLE sealed_token (
    session_id TEXT NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    kind       TEXT NOT NULL CHECK (kind IN ('id', 'access', 'refresh')),
    value      BLOB NOT NULL,
    expires    INTEGER,                 -- NULL: the provider does not say
    PRIMARY KEY (session_id, kind)
) STRICT, WITHOUT ROWID;

-- whatever ends a session
CREATE TRIGGER sealed_token_end AFTER UPDATE OF ended_at ON session WHEN NEW.ended_at IS NOT NULL BEGIN
    DELETE FROM sealed_token WHERE session_id = NEW.id;
END;

ALTER TABLE session ADD COLUMN checked INTEGER;     -- when its provider last confirmed it; NULL: at its beginning
