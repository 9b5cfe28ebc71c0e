"""PostgreSQL's own."""
