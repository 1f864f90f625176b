-- The audit trail. The service may add to it, and neither change nor delete.
CREATE TABLE events (
    merchant_id uuid        NOT NULL,
    payment_id  uuid        NOT NULL,
    sequence    integer     NOT NULL,
    event_id    uuid        NOT NULL,
    type        text        NOT NULL,
    occurred_at timestamptz NOT NULL,
    trace_id    uuid        NOT NULL,
    actor       text        NOT NULL,
    data        jsonb       NOT NULL,
    CONSTRAINT events_pkey PRIMARY KEY (merchant_id, payment_id, sequence),
    CONSTRAINT events_sequence_from_one CHECK (sequence >= 1),
    CONSTRAINT events_type_form CHECK (type ~ '^(payment|refund)\.[a-z_]+$')
);

ALTER TABLE events
    ADD CONSTRAINT events_payment_fkey FOREIGN KEY (merchant_id, payment_id)
    REFERENCES payments (merchant_id, payment_id);

GRANT SELECT, INSERT ON events TO payments_service;
