"""The mathematics: networks, interpolants, samplers, verifiers. Imports torch; never Ray, Redis or FastAPI."""
