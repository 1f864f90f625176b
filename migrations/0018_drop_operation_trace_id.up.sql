-- Contract, second half: nobody reads or writes it any more. The constraint has proven that there is no NULL, so that
-- nothing is read again for SET NOT NULL, which says it better.
ALTER TABLE operations
    -- squawk-ignore adding-not-nullable-field
    ALTER COLUMN traceparent SET NOT NULL,
    -- squawk-ignore ban-drop-constraint
    DROP CONSTRAINT operations_traceparent_known,
    -- squawk-ignore ban-drop-column
    DROP COLUMN trace_id;
