-- no-transaction
-- Nothing uses it any more: see operations_asked_idx. The release before this one is a little slower without it.
DROP INDEX CONCURRENTLY IF EXISTS operations_open_idx;
