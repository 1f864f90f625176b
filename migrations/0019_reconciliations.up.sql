-- When the comparison of provider and database is due, and what the last one found. It is about all merchants, so it is
-- one row, which the first process that looks writes.
CREATE TABLE reconciliations (
    only_one    boolean     NOT NULL DEFAULT true,
    -- Nobody compares before this moment: the interval between two comparisons, or the lease of the one under way. The
    -- value read is the holder's token, because every later lease ends later.
    due_at      timestamptz NOT NULL,
    -- the end of the last comparison that saw everything
    finished_at timestamptz,
    -- what it found: how many of each kind of difference
    differences jsonb,
    CONSTRAINT reconciliations_pkey PRIMARY KEY (only_one),
    CONSTRAINT reconciliations_only_one CHECK (only_one),
    CONSTRAINT reconciliations_found_when_finished CHECK ((finished_at IS NULL) = (differences IS NULL))
);

GRANT SELECT, INSERT, UPDATE ON reconciliations TO payments_service;
