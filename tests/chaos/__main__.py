"""The command; see the package."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos.storm import Storm
from tests.cluster.conftest import start_service, stop_service


def main() -> int:
    """Start a service, let the storm rage, print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="real processes under real faults")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", type=float, default=15, help="seconds between two faults, in the mean")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        service = start_service(
            Path(folder),
            SITSEARCH_COORDINATORS="2",
            SITSEARCH_SAMPLER_REPLICAS="2",
            SITSEARCH_VERIFIERS='["classifier"]',
        )
        try:
            report = Storm(service, given.seed).rage(60 * given.minutes, every=given.every)
        finally:
            stop_service(service)
    print(report)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
