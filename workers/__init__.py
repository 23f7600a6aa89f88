"""What runs on Ray: search, the sampling engine, and the deployments around them."""
