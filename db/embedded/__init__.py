"""The embedded PostgreSQL server: programs, data directory, cluster, start and stop."""
