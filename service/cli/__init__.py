"""The command line: `sitsearch serve | generate | status | cancel | models | verifiers | algorithms`."""

from sitsearch.service.cli.commands import main

__all__ = ["main"]
