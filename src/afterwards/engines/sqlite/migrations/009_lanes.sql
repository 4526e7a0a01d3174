-- The lanes hold since when their tasks could be claimed. A third index of it cost each enqueue another page.
DROP INDEX IF EXISTS afterwards_queued_since;

DROP INDEX IF EXISTS afterwards_queued;

CREATE INDEX afterwards_queued ON afterwards_tasks (suspect, queue, name, priority DESC, seq, queued_at, created_at)
WHERE state = 'queued' AND limit_key = '';

DROP INDEX IF EXISTS afterwards_limited_first;

CREATE INDEX afterwards_limited_first
ON afterwards_tasks (suspect, queue, name, priority DESC, seq, limit_key, queued_at, created_at)
WHERE state = 'queued' AND limit_key != '';
