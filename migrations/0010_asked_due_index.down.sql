DROP INDEX operations_asked_due_idx;
