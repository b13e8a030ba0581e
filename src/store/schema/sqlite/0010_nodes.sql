-- With several nodes a key signs only once all of them know it.

ALTER TABLE signing_key ADD COLUMN signs_from INTEGER NOT NULL DEFAULT 0;   -- Unix seconds
