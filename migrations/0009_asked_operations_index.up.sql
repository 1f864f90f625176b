-- no-transaction
-- What a merchant has open is what it asked for: watches stay out of it. Built beside the service, so without a
-- transaction, and alone in its file. A build that failed leaves an invalid index behind, which IF NOT EXISTS would take
-- for a good one: drop it, and migrate again.
-- squawk-ignore prefer-robust-stmts
CREATE INDEX CONCURRENTLY operations_asked_idx ON operations (merchant_id, payment_id)
    WHERE settled_at IS NULL AND idempotency_key IS NOT NULL;
