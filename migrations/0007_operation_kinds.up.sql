-- Operations learn to capture, cancel, refund and watch. The new rules hold for new rows at once; the next migration
-- checks the old ones, without a lock that anybody waits for.
ALTER TABLE operations
    ADD COLUMN refund_id uuid,
    -- both come back below, wider
    -- squawk-ignore ban-drop-constraint
    DROP CONSTRAINT operations_kind_known,
    -- squawk-ignore ban-drop-constraint
    DROP CONSTRAINT operations_answer_is_final,
    ADD CONSTRAINT operations_kind_known CHECK (
        kind IN ('charge', 'capture', 'cancel', 'refund', 'watch_payment', 'watch_refund')
    ) NOT VALID,
    ADD CONSTRAINT operations_refund_of_its_kind CHECK (
        (refund_id IS NOT NULL) = (kind IN ('refund', 'watch_refund'))
    ) NOT VALID,
    -- nobody asks for a watch, so it has no key
    ADD CONSTRAINT operations_key_when_asked_for CHECK (
        (idempotency_key IS NULL) = (kind IN ('watch_payment', 'watch_refund'))
    ) NOT VALID,
    -- 409: the provider had moved on
    ADD CONSTRAINT operations_answer_is_final CHECK (answer_status IN (200, 201, 402, 409)) NOT VALID,
    ADD CONSTRAINT operations_refund_fkey FOREIGN KEY (merchant_id, refund_id)
        REFERENCES refunds (merchant_id, refund_id) NOT VALID;
