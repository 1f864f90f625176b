CREATE TABLE refunds (
    merchant_id          uuid        NOT NULL,
    refund_id            uuid        NOT NULL,
    payment_id           uuid        NOT NULL,
    -- in the payment's currency; the payment's row keeps the sum, and refuses what would be too much
    amount               bigint      NOT NULL,
    reason               text,
    metadata             jsonb       NOT NULL,
    status               text        NOT NULL,
    failure_code         text,
    failure_message      text,
    failure_decline_code text,
    -- the provider's id, from its first answer on
    provider_refund_id   text,
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL,
    CONSTRAINT refunds_pkey PRIMARY KEY (merchant_id, refund_id),
    CONSTRAINT refunds_amount_range CHECK (amount BETWEEN 1 AND 99999999),
    CONSTRAINT refunds_reason_known CHECK (reason IN ('duplicate', 'fraudulent', 'requested_by_customer')),
    CONSTRAINT refunds_status_known CHECK (status IN ('processing', 'succeeded', 'failed')),
    CONSTRAINT refunds_failure_when_failed CHECK (
        (status = 'failed') = (failure_code IS NOT NULL AND failure_message IS NOT NULL)
    )
);

ALTER TABLE refunds
    ADD CONSTRAINT refunds_payment_fkey FOREIGN KEY (merchant_id, payment_id)
    REFERENCES payments (merchant_id, payment_id);

-- the refunds of a payment, newest first
CREATE INDEX refunds_payment_idx ON refunds (merchant_id, payment_id, refund_id);

GRANT SELECT, INSERT, UPDATE ON refunds TO payments_service;
