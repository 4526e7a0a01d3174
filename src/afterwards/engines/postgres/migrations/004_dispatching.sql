-- The attempts that were sent to a fleet of other software and may be on their way. Unlogged, so that marking and
-- unmarking them costs no write-ahead log: if the server crashes it forgets them, and they are sent once more.
CREATE UNLOGGED TABLE afterwards_dispatches (
    task uuid NOT NULL,
    attempt integer NOT NULL, -- that may start
    at bigint NOT NULL, -- when it was last sent
    sent integer NOT NULL, -- how many times
    PRIMARY KEY (task, attempt)
)
WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

CREATE INDEX afterwards_dispatched ON afterwards_dispatches (at);
