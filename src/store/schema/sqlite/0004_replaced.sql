-- When a password was set, whose an audit event is and whether it gives way to others, and invites by their address.

ALTER TABLE user ADD COLUMN password_set INTEGER NOT NULL DEFAULT 0;    -- 0: before this was written down

ALTER TABLE audit ADD COLUMN owner TEXT NOT NULL DEFAULT '';            -- who brought it about: an account's id, or an address
ALTER TABLE audit ADD COLUMN keep INTEGER NOT NULL DEFAULT 0;           -- 0: the first to go; 1: sign-ins, tokens and the like; 2: commands, administrators
UPDATE audit SET
    owner = CASE WHEN user_id = '' OR event IN ('sign_in_failed', 'banned', 'sign_up') THEN address ELSE user_id END,
    keep = CASE
        WHEN request_id = '' THEN 2
        WHEN event IN ('sign_in', 'sign_out', 'session_ended', 'sessions_ended', 'password_changed', 'password_reset',
                       'invite_used', 'token_created', 'token_revoked') THEN 1
        ELSE 0 END;
CREATE INDEX audit_owner ON audit (keep, owner);

CREATE INDEX link_email ON link (email);
