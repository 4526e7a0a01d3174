-- Instants are microseconds since 1970 (UTC), spans are microseconds, ids are UUIDs in 16 bytes.
-- Within a major version files of this kind only add: the version before goes on working on the same file.

CREATE TABLE afterwards_schema (
    one INTEGER PRIMARY KEY CHECK (one = 1), -- the only row
    version INTEGER NOT NULL
);

CREATE TABLE afterwards_tasks (
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

CREATE UNIQUE INDEX afterwards_id ON afterwards_tasks (id);

-- What can be claimed, in lanes: within one queue and name, the best first. Suspects lie apart.
CREATE INDEX afterwards_queued ON afterwards_tasks (suspect, queue, name, priority DESC) WHERE state = 'queued';

CREATE INDEX afterwards_scheduled ON afterwards_tasks (run_at) WHERE state = 'scheduled';

CREATE INDEX afterwards_running ON afterwards_tasks (lease_until) WHERE state = 'running';

CREATE INDEX afterwards_waiting ON afterwards_tasks (after) WHERE state = 'waiting';

-- Those that a requeue of the task before them brings back.
CREATE INDEX afterwards_cancelled_for_another ON afterwards_tasks (after) WHERE cause IS NOT NULL;

-- Those whose record may be deleted, the first one first.
CREATE INDEX afterwards_over ON afterwards_tasks (finished_at + coalesce(retention, 604800000000)) WHERE finished_at IS NOT NULL;

-- What people look for, and count.
CREATE INDEX afterwards_ended ON afterwards_tasks (state, queue) WHERE finished_at IS NOT NULL;

-- Attempts that did not succeed, oldest first by rowid. A success at the first attempt has no row here.
CREATE TABLE afterwards_failures (
    task BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    at INTEGER NOT NULL,
    worker TEXT NOT NULL,
    kind TEXT NOT NULL,
    type TEXT NOT NULL,
    message TEXT NOT NULL,
    traceback TEXT NOT NULL
);

CREATE INDEX afterwards_failed ON afterwards_failures (task);

CREATE TABLE afterwards_schedules (
    name TEXT PRIMARY KEY, -- the task function's
    expression TEXT NOT NULL,
    after INTEGER NOT NULL, -- fires up to this instant are over with
    last_fire INTEGER,
    paused INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
