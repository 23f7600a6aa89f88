"""The command line: `sitsearch serve | generate | status | cancel | models | verifiers | algorithms`."""

from service.cli.commands import main

__all__ = ["main"]
