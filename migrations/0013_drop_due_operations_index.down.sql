CREATE INDEX operations_due_idx ON operations (lease_until) WHERE settled_at IS NULL;
