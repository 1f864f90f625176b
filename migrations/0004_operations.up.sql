-- Work that must be finished exactly once, the idempotency key that asked for it, and the answer it came to. The three
-- live and die together, so they are one row: a known key has one operation and one answer by construction.
CREATE TABLE operations (
    merchant_id     uuid        NOT NULL,
    -- also the idempotency key that the provider sees
    operation_id    uuid        NOT NULL,
    payment_id      uuid        NOT NULL,
    kind            text        NOT NULL,
    actor           text        NOT NULL,
    trace_id        uuid        NOT NULL,
    idempotency_key text,
    fingerprint     bytea,
    created_at      timestamptz NOT NULL DEFAULT now(),
    -- Nobody but its holder works on the operation before this moment: a lease, or the pause between two attempts. The
    -- value read is the holder's token, because every later lease ends later. A settled operation has infinity: nobody
    -- ever works on it again, and its last holder's token is worth nothing.
    lease_until     timestamptz NOT NULL,
    -- the first caller still waits for its answer; cleared by its 202
    served_until    timestamptz,
    attempts        integer     NOT NULL DEFAULT 0,
    server_errors   smallint    NOT NULL DEFAULT 0,
    absent_since    timestamptz,
    contradicted_at timestamptz,
    settled_at      timestamptz,
    answer_status   smallint,
    answer_location text,
    -- bytes, not jsonb: jsonb rewrites what it is given
    answer_body     bytea,
    CONSTRAINT operations_pkey PRIMARY KEY (merchant_id, operation_id),
    CONSTRAINT operations_idempotency_key UNIQUE (merchant_id, idempotency_key),
    CONSTRAINT operations_kind_known CHECK (kind IN ('charge')),
    CONSTRAINT operations_key_form CHECK (idempotency_key ~ '^[!-~]{1,255}$'),
    CONSTRAINT operations_fingerprint_with_key CHECK ((idempotency_key IS NULL) = (fingerprint IS NULL)),
    CONSTRAINT operations_fingerprint_length CHECK (octet_length(fingerprint) = 33),
    CONSTRAINT operations_answer_when_settled CHECK (
        idempotency_key IS NULL
        OR (settled_at IS NULL) = (answer_status IS NULL) AND (settled_at IS NULL) = (answer_body IS NULL)
    ),
    CONSTRAINT operations_settled_is_nobodys CHECK ((settled_at IS NULL) = (lease_until < 'infinity')),
    CONSTRAINT operations_answer_is_final CHECK (answer_status IN (200, 201, 402))
);

ALTER TABLE operations
    ADD CONSTRAINT operations_payment_fkey FOREIGN KEY (merchant_id, payment_id)
    REFERENCES payments (merchant_id, payment_id);

-- The lists of what is open. Statements about one operation say `lease_until`, never `settled_at IS NULL`: these indexes
-- are the smaller ones, and a plan would walk all that is open instead of looking up one row.

-- the worker's list, oldest first
CREATE INDEX operations_due_idx ON operations (lease_until) WHERE settled_at IS NULL;
-- what a merchant has open
CREATE INDEX operations_open_idx ON operations (merchant_id, payment_id) WHERE settled_at IS NULL;
-- the sweep's list; operations settle in about the order they are stored, so block ranges are enough
CREATE INDEX operations_settled_idx ON operations USING brin (settled_at);

GRANT SELECT, INSERT, UPDATE, DELETE ON operations TO payments_service;
