-- no-transaction
-- The worker's list of watches. They are many and can wait, so they never stand before what somebody asked for.
-- squawk-ignore prefer-robust-stmts
CREATE INDEX CONCURRENTLY operations_watch_due_idx ON operations (lease_until)
    WHERE settled_at IS NULL AND idempotency_key IS NULL;
