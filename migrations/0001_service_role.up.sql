-- The service connects as a login that is a member of this role. It can use the tables, and neither alter them nor
-- change what is in the audit trail. Roles belong to the whole server, so another database may have made it already.
DO $$
BEGIN
    CREATE ROLE payments_service NOLOGIN;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

GRANT USAGE ON SCHEMA public TO payments_service;

-- readiness compares the schema with the one the program was built for
GRANT SELECT ON _sqlx_migrations TO payments_service;
