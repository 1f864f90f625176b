-- no-transaction
-- Nothing uses it any more: see the two that replace it. The release before this one is a little slower without it.
DROP INDEX CONCURRENTLY IF EXISTS operations_due_idx;
