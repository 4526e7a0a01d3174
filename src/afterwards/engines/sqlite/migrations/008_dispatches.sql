-- What was handed to a fleet of other software and has not arrived there. Older versions leave it alone: a row whose
-- attempt cannot start any more says nothing, and is deleted after a day.
CREATE TABLE afterwards_dispatches (
    task BLOB NOT NULL,
    attempt INTEGER NOT NULL, -- that may start
    at INTEGER NOT NULL, -- when it was last sent
    sent INTEGER NOT NULL, -- how many times
    PRIMARY KEY (task, attempt)
) WITHOUT ROWID;

CREATE INDEX afterwards_dispatched ON afterwards_dispatches (at);
