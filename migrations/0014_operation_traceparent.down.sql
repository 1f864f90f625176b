-- loses which span asked for an operation: SELECT EXISTS (SELECT FROM operations WHERE traceparent IS NOT NULL)
ALTER TABLE operations
    DROP CONSTRAINT operations_traceparent_form,
    DROP COLUMN traceparent;
