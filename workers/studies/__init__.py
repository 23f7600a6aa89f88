"""What is measured about search quality. Nothing imports it but the command line."""
