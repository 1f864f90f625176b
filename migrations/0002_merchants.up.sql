CREATE TABLE merchants (
    merchant_id uuid        NOT NULL,
    name        text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT merchants_pkey PRIMARY KEY (merchant_id),
    CONSTRAINT merchants_name_length CHECK (octet_length(name) BETWEEN 1 AND 1600)
);

CREATE TABLE api_keys (
    merchant_id uuid        NOT NULL,
    key_id      uuid        NOT NULL,
    -- SHA-256 of the secret. The secret has 256 random bits, so there is nothing to guess and nothing to salt.
    secret_hash bytea       NOT NULL,
    scope       text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz,
    revoked_at  timestamptz,
    CONSTRAINT api_keys_pkey PRIMARY KEY (merchant_id, key_id),
    CONSTRAINT api_keys_secret_hash_key UNIQUE (merchant_id, secret_hash),
    CONSTRAINT api_keys_secret_hash_length CHECK (octet_length(secret_hash) = 32),
    CONSTRAINT api_keys_scope_known CHECK (scope IN ('read', 'write'))
);

ALTER TABLE api_keys
    ADD CONSTRAINT api_keys_merchant_fkey FOREIGN KEY (merchant_id) REFERENCES merchants (merchant_id);

GRANT SELECT, INSERT ON merchants, api_keys TO payments_service;
GRANT UPDATE (revoked_at) ON api_keys TO payments_service;
