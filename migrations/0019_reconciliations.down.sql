-- loses what the last comparison with the provider found: SELECT EXISTS (SELECT FROM reconciliations WHERE finished_at IS NOT NULL)
DROP TABLE reconciliations;
