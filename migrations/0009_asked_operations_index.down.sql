DROP INDEX operations_asked_idx;
