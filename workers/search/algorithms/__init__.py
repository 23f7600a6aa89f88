"""The search algorithms, pure ask/tell: one file each. `sitsearch.workers.search.registry` lists them."""
