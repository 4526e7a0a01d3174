-- The batch of records that is on its way to another engine: one at most. The contents of its chunks stay where they are.
CREATE TABLE afterwards_outgoing (
    batch BLOB PRIMARY KEY, -- its id
    content TEXT NOT NULL -- JSON
) WITHOUT ROWID;

-- The batches that came from other engines. They are kept for ever: a move may go on after a long time.
CREATE TABLE afterwards_taken_over (
    batch BLOB PRIMARY KEY
) WITHOUT ROWID;
