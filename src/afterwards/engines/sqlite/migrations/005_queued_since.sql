-- Queued tasks by the time since which they could be claimed: the longest wait, and times that a wrong clock gave.
-- Without the second condition, SQLite would use it to look for any queued task, also in the version before.
CREATE INDEX afterwards_queued_since ON afterwards_tasks (coalesce(queued_at, created_at))
WHERE state = 'queued' AND coalesce(queued_at, created_at) IS NOT NULL;
