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
    expires_at INTEGER,
    unique_key TEXT,
    idempotency_key TEXT,
    limit_key TEXT NOT NULL DEFAULT '', -- whose limit it counts against; '' where there is none
    more TEXT, -- a JSON object of what few tasks have, those keys among it: read together, it costs the others little
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
    result TEXT,
    queued_at INTEGER -- since when a queued task could be claimed; NULL: since it was created
);

CREATE UNIQUE INDEX afterwards_id ON afterwards_tasks (id);

-- What can be claimed, in lanes: within one queue and name, the best first. Suspects lie apart.
CREATE INDEX afterwards_queued ON afterwards_tasks (suspect, queue, name, priority DESC)
WHERE state = 'queued' AND limit_key = '';

-- The same of what has a limit: each limit key has a lane of its own.
CREATE INDEX afterwards_limited ON afterwards_tasks (suspect, queue, name, limit_key, priority DESC)
WHERE state = 'queued' AND limit_key != '';

-- The same without regard to the key: who is first of all.
CREATE INDEX afterwards_limited_first ON afterwards_tasks (suspect, queue, name, priority DESC, seq, limit_key)
WHERE state = 'queued' AND limit_key != '';

CREATE INDEX afterwards_scheduled ON afterwards_tasks (run_at) WHERE state = 'scheduled';

CREATE INDEX afterwards_running ON afterwards_tasks (lease_until) WHERE state = 'running';

CREATE INDEX afterwards_waiting ON afterwards_tasks (after) WHERE state = 'waiting';

-- Those that a requeue of the task before them brings back.
CREATE INDEX afterwards_cancelled_for_another ON afterwards_tasks (after) WHERE cause IS NOT NULL;

-- Those whose record may be deleted, the first one first.
CREATE INDEX afterwards_over ON afterwards_tasks (finished_at + coalesce(retention, 604800000000))
WHERE finished_at IS NOT NULL;

-- Those that may be too late to begin, the first one first.
CREATE INDEX afterwards_expiring ON afterwards_tasks (expires_at) WHERE expires_at IS NOT NULL AND finished_at IS NULL;

CREATE UNIQUE INDEX afterwards_unique ON afterwards_tasks (unique_key)
WHERE unique_key IS NOT NULL AND finished_at IS NULL;

CREATE UNIQUE INDEX afterwards_idempotent ON afterwards_tasks (idempotency_key) WHERE idempotency_key IS NOT NULL;

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

-- Ids of calls that a uniqueness rule answered, and the task that stands for them.
CREATE TABLE afterwards_aliases (
    id BLOB PRIMARY KEY,
    task BLOB NOT NULL
) WITHOUT ROWID;

CREATE INDEX afterwards_alias_task ON afterwards_aliases (task);

-- When tasks of functions with a rate were started, and until when that counts.
CREATE TABLE afterwards_starts (
    name TEXT NOT NULL,
    limit_key TEXT NOT NULL,
    at INTEGER NOT NULL,
    until INTEGER NOT NULL
);

CREATE INDEX afterwards_started ON afterwards_starts (name, limit_key, at);

CREATE INDEX afterwards_start_over ON afterwards_starts (until);

-- What no worker may begin now.
CREATE TABLE afterwards_paused (
    kind TEXT NOT NULL, -- queue or name
    name TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;

-- Uploaded files. Each is stored before the task that it is an argument of.
CREATE TABLE afterwards_files (
    id BLOB NOT NULL,
    task BLOB NOT NULL,
    until INTEGER -- when it is deleted, unless its task is stored; NULL once that was seen, so as not to look again
);

CREATE UNIQUE INDEX afterwards_file ON afterwards_files (id);

CREATE INDEX afterwards_files_of ON afterwards_files (task);

CREATE INDEX afterwards_files_over ON afterwards_files (until) WHERE until IS NOT NULL;

-- What is in them. Apart, for to change a row is to write it anew, and these are large.
CREATE TABLE afterwards_chunks (
    file BLOB NOT NULL,
    number INTEGER NOT NULL, -- from 0
    content BLOB NOT NULL
);

CREATE UNIQUE INDEX afterwards_chunk ON afterwards_chunks (file, number);

CREATE TABLE afterwards_schedules (
    name TEXT PRIMARY KEY, -- the task function's
    expression TEXT NOT NULL,
    after INTEGER NOT NULL, -- fires up to this instant are over with
    last_fire INTEGER,
    paused INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE afterwards_workers (
    id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    names TEXT NOT NULL, -- a JSON array: the task functions that it knows
    queues TEXT, -- a JSON array: those that it serves; NULL: all
    slots INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    has_left INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
