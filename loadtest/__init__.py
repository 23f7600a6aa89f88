"""Load tests of a running service, and the report they end in."""
