"""Spend inference-time compute on better images: search over the noise of flow and diffusion models."""
