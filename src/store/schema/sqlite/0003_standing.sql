-- The sessions of an account that stand, however many of it have ended.

CREATE INDEX session_standing ON session (user_id) WHERE ended_at IS NULL;
