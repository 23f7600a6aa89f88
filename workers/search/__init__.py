"""Search algorithms, pure ask/tell, and the run that drives any of them."""

from workers.search.registry import ALGORITHMS

__all__ = ["ALGORITHMS"]
