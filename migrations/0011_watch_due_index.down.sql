DROP INDEX operations_watch_due_idx;
