-- What only the next release wrote gets back what the release before needs.
UPDATE operations SET trace_id = substr(traceparent, 4, 32)::uuid WHERE trace_id IS NULL;
ALTER TABLE operations
    ALTER COLUMN trace_id SET NOT NULL,
    DROP CONSTRAINT operations_traceparent_known;
