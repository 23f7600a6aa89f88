"""Verifiers: images and conditions in, one float an image out; higher is better."""
