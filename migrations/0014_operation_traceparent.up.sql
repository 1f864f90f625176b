-- Expand: an operation keeps where its request stands in its trace, so that whoever settles it later continues that trace.
-- The release before writes only trace_id, and does not notice. The rule holds for new rows; the old ones have nothing yet.
ALTER TABLE operations
    ADD COLUMN traceparent text,
    -- W3C Trace Context, section 3.2
    ADD CONSTRAINT operations_traceparent_form CHECK (
        traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'
    ) NOT VALID;
