-- no-transaction
-- The worker's list of what somebody asked for, oldest first. If it fails, see the migration before.
-- squawk-ignore prefer-robust-stmts
CREATE INDEX CONCURRENTLY operations_asked_due_idx ON operations (lease_until)
    WHERE settled_at IS NULL AND idempotency_key IS NOT NULL;
