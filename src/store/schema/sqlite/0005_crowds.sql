-- Attempts say for which account they were and whether they are decided; browsers, whether they came back.

ALTER TABLE attempt ADD COLUMN account TEXT NOT NULL DEFAULT '';     -- or what was typed in its place
ALTER TABLE attempt ADD COLUMN failed  INTEGER NOT NULL DEFAULT 1;   -- 0: not decided yet
ALTER TABLE attempt ADD COLUMN until   INTEGER NOT NULL DEFAULT 0;   -- when it counts no more
UPDATE attempt SET until = at + 900;
DROP INDEX attempt_at;
CREATE INDEX attempt_until ON attempt (until);

ALTER TABLE device ADD COLUMN came_back INTEGER NOT NULL DEFAULT 1;  -- 0: signed in to this account once
ALTER TABLE session ADD COLUMN device BLOB;                          -- hash of the browser that it was begun in
