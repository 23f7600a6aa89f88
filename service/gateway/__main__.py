"""`python -m sitsearch.service.gateway`: the gateway as the settings say, until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import sys

import uvicorn

from sitsearch.service.gateway.app import NotConfigured, create_app
from sitsearch.workers.settings import settings

#: Seconds that open answers have to end once the gateway is told to stop.
_GRACE = 10


def main() -> None:
    """Serve; exits with 2 and a sentence when a setting is absent."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = settings()
    try:
        app = create_app(config)
    except NotConfigured as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    uvicorn.run(
        app,
        host=config.host,
        port=config.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_GRACE,
    )


if __name__ == "__main__":
    main()
