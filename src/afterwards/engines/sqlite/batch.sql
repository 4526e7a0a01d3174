-- A transaction in one statement: rows are inserted into a view that is each connection's own, and triggers do what each
-- asks for. If one of them refuses, nothing of the statement is done.

CREATE TEMP VIEW afterwards_batch AS
SELECT
    NULL AS does, -- look, begin or succeed
    NULL AS at,
    NULL AS worker,
    NULL AS lease_until,
    -- Of a task that begins; 0 where there is none.
    NULL AS id,
    NULL AS name,
    NULL AS arguments,
    NULL AS queue,
    NULL AS priority,
    NULL AS retention,
    NULL AS origin,
    -- Of one that has succeeded; 0 where there is none.
    NULL AS ended,
    NULL AS attempt,
    NULL AS failed,
    NULL AS crashed,
    NULL AS result;

-- What comes before a new task, keeps it from beginning, or waits for another one to end. What is queued with a limit is
-- passed, also where its function has none any more.
CREATE TEMP TRIGGER afterwards_look INSTEAD OF INSERT ON afterwards_batch WHEN NEW.does = 'look'
BEGIN
    SELECT RAISE (ABORT, 'this takes more than a batch')
    WHERE EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'queued' AND limit_key = '')
        OR EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'scheduled' AND run_at <= NEW.at)
        OR EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'waiting')
        OR EXISTS (SELECT 1 FROM afterwards_paused);
END;

-- A new task, leased as it is stored.
CREATE TEMP TRIGGER afterwards_begin INSTEAD OF INSERT ON afterwards_batch WHEN NEW.does = 'begin' AND NEW.id != 0
BEGIN
    INSERT INTO afterwards_tasks (
        id, name, arguments, created_at, state, queue, priority, retention, origin,
        attempt, worker, lease_until, started_at
    )
    VALUES (
        NEW.id, NEW.name, NEW.arguments, NEW.at, 'running', NEW.queue, NEW.priority, nullif(NEW.retention, 604800000000),
        nullif(NEW.origin, ''), 1, NEW.worker, NEW.lease_until, NEW.at
    );
END;

-- A success, if the lease still holds, and no other task was waiting for this one's limit.
CREATE TEMP TRIGGER afterwards_succeed INSTEAD OF INSERT ON afterwards_batch WHEN NEW.does = 'succeed' AND NEW.ended != 0
BEGIN
    UPDATE afterwards_tasks SET
        state = 'succeeded', failed = NEW.failed, crashed = NEW.crashed, suspect = 0, losses = 0, lease_until = NULL,
        finished_at = NEW.at, cancel_requested = NULL, reason = NULL, result = nullif(NEW.result, '')
    WHERE id = NEW.ended AND attempt = NEW.attempt AND state = 'running' AND limit_key = '';
    SELECT RAISE (ABORT, 'this takes more than a batch') WHERE changes() = 0;
END;
