"""Agreement with the reference SiT implementation, on arrays recorded from it (data/README.md)."""
