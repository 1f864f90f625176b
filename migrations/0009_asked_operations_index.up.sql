-- no-transaction
-- What a merchant has open is what it asked for: watches stay out of it. Built beside the service, so without a
-- transaction, and alone in its file.
CREATE INDEX CONCURRENTLY IF NOT EXISTS operations_asked_idx ON operations (merchant_id, payment_id)
    WHERE settled_at IS NULL AND idempotency_key IS NOT NULL;
