-- The button that a browser signed in by last is marked.

ALTER TABLE device ADD COLUMN provider TEXT;    -- name of the [[provider]]; NULL: a password or a link
