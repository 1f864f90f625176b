-- loses idempotency keys and open work: SELECT EXISTS (SELECT FROM operations)
DROP TABLE operations;
