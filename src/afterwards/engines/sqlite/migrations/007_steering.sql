-- The parameters whose values are never shown, a JSON array; NULL: none. Not in `more`, of whose new names the version
-- before would say that it cannot read them.
ALTER TABLE afterwards_tasks ADD COLUMN secrets TEXT;

-- Tasks by the one that they come directly after. By an expression, because SQLite would use an index of the column
-- instead of the smaller ones of those that wait and of those that were cancelled, also in the version before.
CREATE INDEX afterwards_after ON afterwards_tasks (coalesce(after, '')) WHERE after IS NOT NULL;

-- What attempts logged, oldest first by rowid.
CREATE TABLE afterwards_logs (
    task BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    lines TEXT NOT NULL -- a JSON array of [at, level, logger, message]
);

CREATE INDEX afterwards_logged ON afterwards_logs (task);

-- A trigger, because the version before deletes tasks, too, and does not know their logs.
CREATE TRIGGER afterwards_logs_over AFTER DELETE ON afterwards_tasks
BEGIN
    DELETE FROM afterwards_logs WHERE task = old.id;
END;

-- Ended attempts by the minute in which they ended.
CREATE TABLE afterwards_tallies (
    at INTEGER PRIMARY KEY, -- the beginning of the minute
    succeeded INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    retried INTEGER NOT NULL
);

-- What else a worker tells of itself, a JSON object; NULL: nothing.
ALTER TABLE afterwards_workers ADD COLUMN more TEXT;
