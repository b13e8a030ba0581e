-- Signing keys are sealed (AES-256-GCM) with a key that is kept outside the database.

ALTER TABLE signing_key ADD COLUMN sealed_by TEXT;      -- id of that key; NULL: not sealed yet, from before this version
