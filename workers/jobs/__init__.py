"""What the gateway and the workers share: a job's schemas and its store in Redis. Imports neither torch nor Ray."""
