CREATE TABLE payments (
    merchant_id          uuid        NOT NULL,
    payment_id           uuid        NOT NULL,
    reference            text        NOT NULL,
    -- The reference while the payment lives, NULL once it failed or was canceled. A partial unique index on status
    -- would do the same, and make every settlement touch every index.
    live_reference       text,
    status               text        NOT NULL,
    pending_operation    text,
    pending_amount       bigint,
    amount               bigint      NOT NULL,
    amount_captured      bigint      NOT NULL DEFAULT 0,
    amount_refunded      bigint      NOT NULL DEFAULT 0,
    currency             text        NOT NULL,
    capture              text        NOT NULL,
    payment_method       text        NOT NULL,
    description          text,
    customer_name        text,
    customer_email       text,
    statement_descriptor text,
    return_url           text,
    metadata             jsonb       NOT NULL,
    failure_code         text,
    failure_message      text,
    failure_decline_code text,
    redirect_url         text,
    -- the provider's id, from its first answer on
    intent_id            text,
    -- the sequence of the newest event; only the guarded UPDATE of this row counts it up
    last_event           integer     NOT NULL,
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL,
    CONSTRAINT payments_pkey PRIMARY KEY (merchant_id, payment_id),
    CONSTRAINT payments_live_reference_key UNIQUE (merchant_id, live_reference),
    CONSTRAINT payments_amount_range CHECK (amount BETWEEN 1 AND 99999999),
    CONSTRAINT payments_amount_steps CHECK (
        amount % 10 = 0 OR currency NOT IN ('BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMR', 'TND')
    ),
    CONSTRAINT payments_amounts_ordered CHECK (
        0 <= amount_refunded AND amount_refunded <= amount_captured AND amount_captured <= amount
    ),
    CONSTRAINT payments_currency_form CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT payments_capture_known CHECK (capture IN ('automatic', 'manual')),
    CONSTRAINT payments_status_known CHECK (
        status IN ('processing', 'requires_action', 'authorized', 'captured', 'canceled', 'failed')
    ),
    CONSTRAINT payments_captured_when_captured CHECK ((status = 'captured') = (amount_captured > 0)),
    CONSTRAINT payments_pending_known CHECK (
        pending_operation IS NULL
        OR (pending_operation = 'capture' AND status = 'authorized')
        OR (pending_operation = 'cancel' AND status IN ('authorized', 'requires_action'))
    ),
    CONSTRAINT payments_pending_amount CHECK (
        CASE WHEN pending_operation = 'capture'
            THEN pending_amount IS NOT NULL AND pending_amount BETWEEN 1 AND amount
            ELSE pending_amount IS NULL
        END
    ),
    CONSTRAINT payments_live_reference_while_alive CHECK (
        CASE WHEN status IN ('canceled', 'failed')
            THEN live_reference IS NULL
            ELSE live_reference IS NOT NULL AND live_reference = reference
        END
    ),
    CONSTRAINT payments_failure_when_failed CHECK (
        (status = 'failed') = (failure_code IS NOT NULL AND failure_message IS NOT NULL)
    ),
    CONSTRAINT payments_redirect_when_required CHECK (redirect_url IS NULL OR status = 'requires_action'),
    CONSTRAINT payments_last_event_counts CHECK (last_event >= 1)
) WITH (fillfactor = 80); -- room for the settled version of a row beside its first: the update touches no index

-- Merchants look up by their own order number. There is no foreign key to merchants: every payment would share-lock its
-- merchant's row, the id comes from a verified key, and merchants are never deleted.
CREATE INDEX payments_reference_idx ON payments (merchant_id, reference);

GRANT SELECT, INSERT, UPDATE ON payments TO payments_service;
