CREATE INDEX operations_open_idx ON operations (merchant_id, payment_id) WHERE settled_at IS NULL;
