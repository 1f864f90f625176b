-- The role stays: it belongs to the whole server, and another database may use it.
REVOKE SELECT ON _sqlx_migrations FROM payments_service;
REVOKE USAGE ON SCHEMA public FROM payments_service;
