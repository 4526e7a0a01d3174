-- Attempts in a row whose worker was lost.
ALTER TABLE afterwards_tasks ADD COLUMN losses INTEGER NOT NULL DEFAULT 0;
