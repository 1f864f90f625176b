-- loses API keys: SELECT EXISTS (SELECT FROM api_keys)
DROP TABLE api_keys;
-- loses merchants: SELECT EXISTS (SELECT FROM merchants)
DROP TABLE merchants;
