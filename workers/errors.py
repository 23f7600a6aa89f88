"""The exceptions of the workers.

SitsearchError
|- SearchError        a search was used against its protocol
|- PluginError        an installed plug-in cannot be used
|- BudgetTooSmall     a budget buys less than the request needs
|- VerifierInvalid    a whole round of candidates has no score that is a number
|- Unsuitable         parts of a request do not go together
'- UnknownName        a model, verifier, algorithm or class that is not there
"""

from __future__ import annotations

from collections.abc import Iterable


class SitsearchError(Exception):
    """Base of all errors that this package raises on purpose."""


class SearchError(SitsearchError):
    """A search was told something it did not ask for."""


class PluginError(SitsearchError):
    """An installed plug-in cannot be used."""


class VerifierInvalid(SitsearchError):
    """A whole round of candidates has no score that is a number."""


class BudgetTooSmall(SitsearchError):
    """A budget buys less than the request needs.

    Attributes:
        unit: `nfe` or `forwards`.
        given: the request's budget.
        least: the smallest budget that would do.
    """

    def __init__(self, unit: str, given: int, least: int) -> None:
        super().__init__(f"budget.{unit} is {given}; this request needs at least {least}")
        self.unit, self.given, self.least = unit, given, least


class Unsuitable(SitsearchError):
    """Parts of a request do not go together.

    Attributes:
        field: the field at fault, dotted.
        message: what is wrong and what is allowed.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


class UnknownName(SitsearchError):
    """No such model, verifier, algorithm or class.

    Attributes:
        kind: what was looked for.
        name: the name that is not known.
        known: the names that are.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, tuple(known)
        super().__init__(f"no {kind} named {name!r}; known: {', '.join(self.known) or 'none'}")
