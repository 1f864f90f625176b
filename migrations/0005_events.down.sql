-- loses the audit trail: SELECT EXISTS (SELECT FROM events)
DROP TABLE events;
