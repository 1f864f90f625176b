-- loses refunds: SELECT EXISTS (SELECT FROM refunds)
DROP TABLE refunds;
