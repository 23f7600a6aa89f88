"""The gateway: HTTP in front of the job store. Its process imports neither torch nor Ray."""
