-- Instants are microseconds since 1970 (UTC), spans are microseconds: exact, and the same through every driver.
-- Within a major version files of this kind only add: the version before goes on working on the same tables.
-- Text by which tasks are found is compared by code points, whatever the database's collation.

CREATE TABLE afterwards_schema (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), -- the only row
    version integer NOT NULL
);

CREATE TABLE afterwards_tasks (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- the order in which tasks were stored
    id uuid NOT NULL,
    created_at bigint NOT NULL,
    run_at bigint,
    lease_until bigint,
    started_at bigint,
    finished_at bigint,
    expires_at bigint,
    since bigint, -- queued: since when it could be claimed; scheduled: since when its run_at is waited for
    retention bigint, -- NULL: seven days
    priority integer NOT NULL,
    attempt integer NOT NULL DEFAULT 0,
    failed integer NOT NULL DEFAULT 0,
    crashed integer NOT NULL DEFAULT 0,
    losses integer NOT NULL DEFAULT 0, -- attempts in a row whose worker was lost
    failures_left_out integer NOT NULL DEFAULT 0, -- deleted, but counted
    suspect boolean NOT NULL DEFAULT false,
    plain boolean NOT NULL DEFAULT false,
    rerun_after_crash boolean NOT NULL DEFAULT true,
    state text NOT NULL COLLATE "C",
    queue text NOT NULL COLLATE "C",
    name text NOT NULL COLLATE "C",
    limit_key text NOT NULL COLLATE "C" DEFAULT '', -- whose limit it counts against; '' where there is none
    arguments text NOT NULL,
    overrides text,
    origin text,
    after uuid,
    cause uuid,
    unique_key text COLLATE "C",
    idempotency_key text COLLATE "C",
    context text,
    worker text COLLATE "C",
    cancel_requested text,
    reason text,
    progress text,
    result text,
    aside_from text COLLATE "C", -- the state that it had when it was set aside; NULL: it is not set aside
    set_aside text -- why
)
-- Room beside each row for its next version; dead versions are removed early, because claims read past them.
WITH (
    fillfactor = 85,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_analyze_threshold = 1000
);

CREATE UNIQUE INDEX afterwards_id ON afterwards_tasks (id);

-- Tasks that can be claimed, in lanes: within one queue and name, the best first. Suspects are apart.
CREATE INDEX afterwards_queued ON afterwards_tasks (queue, name, priority DESC, seq)
WHERE state = 'queued' AND limit_key = '' AND NOT suspect;

-- The same for tasks that have a limit: each limit key has a lane of its own.
CREATE INDEX afterwards_limited ON afterwards_tasks (queue, name, limit_key, priority DESC, seq)
WHERE state = 'queued' AND limit_key <> '' AND NOT suspect;

-- The same without regard to the key: who is first of all.
CREATE INDEX afterwards_limited_first ON afterwards_tasks (queue, name, priority DESC, seq)
WHERE state = 'queued' AND limit_key <> '' AND NOT suspect;

CREATE INDEX afterwards_suspects ON afterwards_tasks (queue, name, priority DESC, seq)
WHERE state = 'queued' AND suspect;

CREATE INDEX afterwards_scheduled ON afterwards_tasks (run_at) WHERE state = 'scheduled';

-- Without lease_until: so a heartbeat changes no index. As many tasks run as there are slots.
CREATE INDEX afterwards_running ON afterwards_tasks (name, limit_key) WHERE state = 'running';

CREATE INDEX afterwards_waiting ON afterwards_tasks (after) WHERE state = 'waiting';

-- Tasks that a requeue of the task before them brings back.
CREATE INDEX afterwards_cancelled_for_another ON afterwards_tasks (after) WHERE cause IS NOT NULL;

-- Finished tasks by the end of their retention; queue and state are there to be counted.
CREATE INDEX afterwards_over ON afterwards_tasks ((finished_at + coalesce(retention, 604800000000))) INCLUDE (state, queue)
WHERE finished_at IS NOT NULL;

CREATE INDEX afterwards_unsuccessful ON afterwards_tasks (state, seq) WHERE state IN ('failed', 'cancelled');

CREATE INDEX afterwards_expiring ON afterwards_tasks (expires_at) WHERE expires_at IS NOT NULL AND finished_at IS NULL;

CREATE UNIQUE INDEX afterwards_unique ON afterwards_tasks (unique_key)
WHERE unique_key IS NOT NULL AND finished_at IS NULL;

CREATE UNIQUE INDEX afterwards_idempotent ON afterwards_tasks (idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE INDEX afterwards_aside ON afterwards_tasks (seq) WHERE aside_from IS NOT NULL;

-- Attempts that did not succeed, in the order stored. A success at the first attempt has no row here.
CREATE TABLE afterwards_failures (
    seq bigint GENERATED ALWAYS AS IDENTITY,
    task uuid NOT NULL,
    attempt integer NOT NULL,
    at bigint NOT NULL,
    worker text NOT NULL,
    kind text NOT NULL,
    type text NOT NULL,
    message text NOT NULL,
    traceback text NOT NULL
);

CREATE INDEX afterwards_failed ON afterwards_failures (task, seq);

-- Ids of calls that a uniqueness rule answered, and the task that stands for them.
CREATE TABLE afterwards_aliases (
    id uuid PRIMARY KEY,
    task uuid NOT NULL
);

CREATE INDEX afterwards_alias_task ON afterwards_aliases (task);

-- When tasks of functions with a rate were started, and until when that counts.
CREATE TABLE afterwards_starts (
    name text NOT NULL COLLATE "C",
    limit_key text NOT NULL COLLATE "C",
    at bigint NOT NULL,
    until bigint NOT NULL
);

CREATE INDEX afterwards_started ON afterwards_starts (name, limit_key, at);

CREATE INDEX afterwards_start_over ON afterwards_starts (until);

-- Queues and task functions whose tasks no worker may start now.
CREATE TABLE afterwards_paused (
    kind text NOT NULL, -- queue or name
    name text NOT NULL COLLATE "C",
    PRIMARY KEY (kind, name)
);

-- Uploaded files. Each is stored before the task that it is an argument of.
CREATE TABLE afterwards_files (
    id uuid PRIMARY KEY,
    task uuid NOT NULL,
    until bigint -- when it is deleted, unless its task is stored; NULL once that was seen
);

CREATE INDEX afterwards_files_of ON afterwards_files (task);

CREATE INDEX afterwards_files_over ON afterwards_files (until) WHERE until IS NOT NULL;

CREATE TABLE afterwards_chunks (
    file uuid NOT NULL,
    number integer NOT NULL, -- from 0
    content bytea NOT NULL,
    PRIMARY KEY (file, number)
);

ALTER TABLE afterwards_chunks ALTER COLUMN content SET STORAGE EXTERNAL; -- not compressed: most uploads are already

CREATE TABLE afterwards_schedules (
    name text PRIMARY KEY COLLATE "C", -- the task function's
    expression text NOT NULL,
    after bigint NOT NULL, -- fires up to this instant are handled
    last_fire bigint,
    paused boolean NOT NULL DEFAULT false
);

CREATE TABLE afterwards_workers (
    id text PRIMARY KEY COLLATE "C",
    host text NOT NULL,
    pid text NOT NULL,
    started_at bigint NOT NULL,
    names text NOT NULL, -- a JSON array: the task functions that it knows
    queues text, -- a JSON array: those that it serves; NULL: all
    slots integer NOT NULL,
    seen_at bigint NOT NULL,
    has_left boolean NOT NULL DEFAULT false
);

-- Tasks behind which not all are decided on yet: there were too many for one transaction. Later ones go on with them.
CREATE TABLE afterwards_behind (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- the order in which they were noted
    task uuid NOT NULL,
    revived boolean NOT NULL, -- true: those cancelled because of it come back; false: those that wait follow its end
    beyond bigint NOT NULL -- those behind it up to this seq are decided on
);

CREATE INDEX afterwards_behind_task ON afterwards_behind (task);
