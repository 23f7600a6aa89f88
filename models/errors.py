"""The exceptions of the models.

ModelError (ValueError)
|- UnknownCard        no model or verifier card of that name
'- BadWeights         a weights file is missing, refused, or does not fit its card
"""

from __future__ import annotations


class ModelError(ValueError):
    """Base of all errors that this package raises on purpose."""


class UnknownCard(ModelError):
    """No model or verifier card of that name."""


class BadWeights(ModelError):
    """A weights file is missing, refused, or does not fit its card."""
