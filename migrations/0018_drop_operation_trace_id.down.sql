-- Nothing is lost: the trace id is a part of traceparent. The table is locked while it is filled, as long as that takes.
ALTER TABLE operations
    ADD COLUMN trace_id uuid,
    ADD CONSTRAINT operations_traceparent_known CHECK (traceparent IS NOT NULL),
    ALTER COLUMN traceparent DROP NOT NULL;

UPDATE operations SET trace_id = substr(traceparent, 4, 32)::uuid;
