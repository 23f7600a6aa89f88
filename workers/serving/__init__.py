"""What runs on Ray Serve: sampler and verifier deployments, and the coordinator that searches over them."""
