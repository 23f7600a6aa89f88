"""The exceptions of the verifiers.

ModelError
|- UnknownKind          no verifier kind of that name
|- BadOptions           a card sets an option that its kind does not have, or to a value it refuses
|- PluginError          a plug-in takes a name that is taken, or cannot be imported
'- VerifierUnavailable  what scores is elsewhere and did not answer
"""

from __future__ import annotations

from sitsearch.models.errors import ModelError


class UnknownKind(ModelError):
    """No verifier kind of that name."""


class BadOptions(ModelError):
    """A card sets an option that its kind does not have, or to a value it refuses."""


class PluginError(ModelError):
    """A plug-in takes a name that is taken, or cannot be imported."""


class VerifierUnavailable(ModelError):
    """What scores is elsewhere and did not answer in time, or not as agreed; trying the job again later may help."""
