-- Tasks behind which not all are decided on yet: there were too many for one transaction. Later ones go on with them.
CREATE TABLE afterwards_behind (
    seq INTEGER PRIMARY KEY, -- the order in which they were noted
    task BLOB NOT NULL,
    revived INTEGER NOT NULL, -- 1: those cancelled for its sake come back; 0: those that wait follow its end
    beyond INTEGER NOT NULL -- those behind it up to this seq are decided on
);
