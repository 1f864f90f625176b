-- Run as the owner after every migration; the second time it changes nothing but the password.
\set ON_ERROR_STOP on
\set password `cat /run/secrets/service_password`
SELECT 'CREATE ROLE payments_login LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'payments_login') \gexec
ALTER ROLE payments_login PASSWORD :'password';
GRANT payments_service TO payments_login;
