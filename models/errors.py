"""The exceptions of the models.

ModelError (ValueError)
|- UnknownCard          no model or verifier card of that name
|- BadCard              a card is not written as cards are
|- BadWeights           a weights file is missing, refused, or does not fit its card
|  '- ChecksumMismatch  a file is not the one that its SHA-256 names
|- DownloadFailed       weights could not be fetched
'- MissingLibrary       a library that only some models need is not installed
"""

from __future__ import annotations


class ModelError(ValueError):
    """Base of all errors that this package raises on purpose."""


class UnknownCard(ModelError):
    """No model or verifier card of that name."""


class BadCard(ModelError):
    """A card is not written as cards are."""


class BadWeights(ModelError):
    """A weights file is missing, refused, or does not fit its card."""


class ChecksumMismatch(BadWeights):
    """A file is not the one that its SHA-256 names."""


class DownloadFailed(ModelError):
    """Weights could not be fetched."""


class MissingLibrary(ModelError):
    """A library that only some models need is not installed."""
