"""What the gateway and the workers share: the schemas of a job and its store in Redis. Imports neither torch nor Ray."""
