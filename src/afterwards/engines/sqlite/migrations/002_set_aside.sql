-- What no worker of this version can run: it stays stored, in a state of its own, for code that can.
-- 'unreadable': the row cannot be read; 'refused': its arguments do not fit the function.
ALTER TABLE afterwards_tasks ADD COLUMN aside_from TEXT; -- the state that it had; NULL: it is not set aside

ALTER TABLE afterwards_tasks ADD COLUMN set_aside TEXT; -- why

ALTER TABLE afterwards_tasks ADD COLUMN failures_left_out INTEGER NOT NULL DEFAULT 0; -- deleted, but counted

-- By that column and not by the state: claims and successes write the state, and so have nothing to do with it.
CREATE INDEX afterwards_aside ON afterwards_tasks (seq) WHERE aside_from IS NOT NULL;
