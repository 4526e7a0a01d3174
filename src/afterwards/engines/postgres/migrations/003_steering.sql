-- Parameters whose values are never shown, and "return" for the result: names separated by spaces. NULL: none.
ALTER TABLE afterwards_tasks ADD COLUMN secrets text;

-- The tasks directly behind one, whatever their states.
CREATE INDEX afterwards_after ON afterwards_tasks (after) WHERE after IS NOT NULL;

ALTER TABLE afterwards_workers
    ADD COLUMN lag bigint, -- a span: the longest time that its event loop was late; NULL: not known
    ADD COLUMN version text, -- of the package
    ADD COLUMN running text; -- JSON: the plain functions that run in its process

-- The lines that attempts logged: a row for each attempt that logged any.
CREATE TABLE afterwards_logs (
    task uuid NOT NULL,
    attempt integer NOT NULL,
    lines text NOT NULL, -- JSON
    PRIMARY KEY (task, attempt)
);

-- How many attempts ended, by the minute. Each server process counts in rows of its own, so that no two transactions
-- wait for each other. A while later the rows of a minute are merged into that of process 0.
CREATE TABLE afterwards_tallies (
    minute bigint NOT NULL, -- the instant at which it began
    process integer NOT NULL, -- pg_backend_pid()
    succeeded bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    retried bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (minute, process)
)
-- The rows of this minute change all the time: room for their next versions.
WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

CREATE INDEX afterwards_not_merged ON afterwards_tallies (minute) WHERE process <> 0;
