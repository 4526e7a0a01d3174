-- The batch of records that is on its way to another engine: one at most. The contents of its chunks stay where they are.
CREATE TABLE afterwards_outgoing (
    batch uuid PRIMARY KEY, -- its id
    content text NOT NULL -- JSON
);

-- The batches that came from other engines. They are kept for ever: a move may go on after a long time.
CREATE TABLE afterwards_taken_over (
    batch uuid PRIMARY KEY
);
