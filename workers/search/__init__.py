"""Search algorithms, pure ask/tell, and the run that drives any of them."""

from __future__ import annotations

from typing import Any

from workers.search.base import Search
from workers.search.random_search import RandomSearch

#: Every algorithm by name. Adding one is a file beside these and a line here.
ALGORITHMS: dict[str, Search[Any]] = {search.name: search for search in (RandomSearch(),)}
