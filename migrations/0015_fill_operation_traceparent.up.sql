-- no-transaction
-- Back-fill: rows from before the switch. Each batch is a transaction of its own, walked by the primary key, so that no row
-- is locked for long and none is read twice; a row that somebody works on is left for the next walk. Stopped anywhere, it
-- goes on where it ended, because what is filled is filled.
DO $$
DECLARE
    nobody CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    at_merchant uuid := nobody;
    at_operation uuid := nobody;
    ends record;
BEGIN
    LOOP
        WITH batch AS (
            SELECT merchant_id, operation_id FROM operations
            WHERE (merchant_id, operation_id) > (at_merchant, at_operation)
            ORDER BY merchant_id, operation_id LIMIT 1000
        ), free AS (
            SELECT merchant_id, operation_id FROM operations
            WHERE (merchant_id, operation_id) IN (SELECT merchant_id, operation_id FROM batch)
              AND traceparent IS NULL
            FOR UPDATE SKIP LOCKED
        ), filled AS (
            UPDATE operations
            -- nobody recorded the span, so the trace goes on unrecorded; its id is half of the operation's
            SET traceparent = '00-' || replace(operations.trace_id::text, '-', '')
                || '-' || right(replace(operations.operation_id::text, '-', ''), 16) || '-00'
            FROM free
            WHERE operations.merchant_id = free.merchant_id AND operations.operation_id = free.operation_id
        )
        SELECT merchant_id, operation_id INTO ends FROM batch ORDER BY merchant_id DESC, operation_id DESC LIMIT 1;
        COMMIT;
        IF ends IS NOT NULL THEN
            at_merchant := ends.merchant_id;
            at_operation := ends.operation_id;
        ELSIF EXISTS (SELECT FROM operations WHERE traceparent IS NULL) THEN
            at_merchant := nobody;
            at_operation := nobody;
            PERFORM pg_sleep(1);
        ELSE
            EXIT;
        END IF;
    END LOOP;
END $$;
