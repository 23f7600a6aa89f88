"""`python -m service.gateway`: serve the gateway on the configured address."""

from __future__ import annotations

import sys

import uvicorn

from service.gateway.app import create_app
from workers.jobs.store import JobStore
from workers.settings import settings

GRACE = 10


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    config = settings()
    if config.redis_url is None:
        sys.exit("the gateway needs SITSEARCH_REDIS_URL; `sitsearch serve` brings a store of its own")
    app = create_app(config, JobStore.from_url(config.redis_url, config))
    uvicorn.run(
        app, host=config.host, port=config.port, access_log=False, log_level="info", timeout_graceful_shutdown=GRACE
    )


if __name__ == "__main__":
    main()
