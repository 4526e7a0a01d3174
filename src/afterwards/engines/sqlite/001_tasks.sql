-- Instants are microseconds since 1970 (UTC), spans are microseconds, ids are UUIDs in 16 bytes.
-- Within a major version files of this kind only add: the version before goes on working on the same file.

CREATE TABLE tasks (
    seq INTEGER PRIMARY KEY, -- the order in which tasks were stored
    id BLOB NOT NULL,
    name TEXT NOT NULL,
    arguments TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    state TEXT NOT NULL,
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    overrides TEXT,
    retention INTEGER, -- NULL: seven days
    origin TEXT,
    after BLOB,
    plain INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    crashed INTEGER NOT NULL DEFAULT 0,
    suspect INTEGER NOT NULL DEFAULT 0,
    run_at INTEGER,
    worker TEXT,
    lease_until INTEGER,
    started_at INTEGER,
    finished_at INTEGER,
    cancel_requested TEXT,
    reason TEXT,
    cause BLOB,
    progress TEXT,
    result TEXT
);

CREATE UNIQUE INDEX tasks_id ON tasks (id);

-- What can be claimed, in lanes: within one queue and name, the best first. Suspects lie apart.
CREATE INDEX tasks_queued ON tasks (suspect, queue, name, priority DESC) WHERE state = 'queued';

CREATE INDEX tasks_scheduled ON tasks (run_at) WHERE state = 'scheduled';

CREATE INDEX tasks_running ON tasks (lease_until) WHERE state = 'running';

CREATE INDEX tasks_waiting ON tasks (after) WHERE state = 'waiting';

-- Those that a requeue of the task before them brings back.
CREATE INDEX tasks_cancelled_for_another ON tasks (after) WHERE cause IS NOT NULL;

-- Those whose record may be deleted, the first one first.
CREATE INDEX tasks_over ON tasks (finished_at + coalesce(retention, 604800000000)) WHERE finished_at IS NOT NULL;

-- What people look for, and count.
CREATE INDEX tasks_ended ON tasks (state, queue) WHERE finished_at IS NOT NULL;

-- Attempts that did not succeed, oldest first by rowid. A success at the first attempt has no row here.
CREATE TABLE failures (
    task BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    at INTEGER NOT NULL,
    worker TEXT NOT NULL,
    kind TEXT NOT NULL,
    type TEXT NOT NULL,
    message TEXT NOT NULL,
    traceback TEXT NOT NULL
);

CREATE INDEX failures_task ON failures (task);
