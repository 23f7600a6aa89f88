"""Training of SiT networks: `python -m sitsearch.models.training CONFIG.toml --out FOLDER` (see `__main__.py`).

Everything random in it is a function of the seed, the step and the row within the batch (`draws.py`). So a run that was
interrupted and resumed ends in the same weights as one that was not, and processes that share a batch train as one
process with the whole batch would.
"""
