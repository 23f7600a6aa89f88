"""The cards of verifiers: what a card may say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sitsearch.models.card_files import CardFile, known_cards, read_card, reasons
from sitsearch.models.errors import BadCard, UnknownCard
from sitsearch.models.verifiers.base import Need, Verifier
from sitsearch.models.verifiers.registry import VERIFIER_KINDS, stands_alone, title_of


class VerifierTable(BaseModel):
    """A verifier's card. What else it says are the options of its kind, which the kind checks when it is loaded."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    title: str
    kind: str = Field(description="see `sitsearch.models.verifiers.registry`")
    weights: str | None = Field(None, description="file or folder, for a kind that reads some")
    models: tuple[str, ...] = Field(description="whose images it can score; empty: those of all")
    needs: frozenset[Need] | None = Field(None, description="may be said again, and must then be the verifier's own")
    range: tuple[float, float] | None = Field(None, description="likewise")


class VerifierCard:
    """A verifier's card. What the verifier needs and between which bounds it scores, the loaded verifier knows.

    Attributes:
        file: the card's file, and where its weights are; None for a kind that stands alone.
        table: all that it says.
        name: by which requests ask for it.
        title: one line for people.
        kind: its class, see `sitsearch.models.verifiers.registry`.
        weights: file or folder, whether or not it is there; None for a kind without.
        models: names of the models whose images it can score; empty: of all.
        options: the arguments of its kind's class.
    """

    def __init__(self, file: CardFile | None, table: VerifierTable) -> None:
        self.file, self.table = file, table
        self.name, self.title, self.kind, self.models = table.name, table.title, table.kind, table.models
        self.weights: Path | None = None
        if file is not None and table.weights is not None:
            self.weights = file.base / Path(table.weights).expanduser()
        self.options: dict[str, Any] = dict(table.model_extra or {})

    def check(self, verifier: Verifier) -> None:
        """Hold what the card says of `needs` and `range`, if it does, against the verifier's own.

        Raises:
            BadCard: they differ.
        """
        said = self.table
        if said.needs is not None and said.needs != verifier.needs:
            raise self._differs("needs", sorted(said.needs), sorted(verifier.needs))
        # A bound may come from the weights, such as a learned scale, and be rounded on the card.
        if said.range is not None and not all(
            math.isclose(bound, own, rel_tol=1e-6, abs_tol=1e-6)
            for bound, own in zip(said.range, verifier.range, strict=True)
        ):
            raise self._differs("range", list(said.range), list(verifier.range))

    def _differs(self, field: str, said: list[Any], own: list[Any]) -> BadCard:
        where = self.name if self.file is None else self.file.path
        return BadCard(
            f"the card {where}: {field}: it says {said}, but the verifier has {own}; correct the line, or leave it out"
        )


def verifier_card(name: str) -> VerifierCard:
    """The verifier card `name`; a kind that needs neither weights nor options is its own card.

    Raises:
        UnknownCard: there is none, or it is a model's.
        BadCard: it is not as `VerifierTable` says.
        PluginError, MissingLibrary: see `VERIFIER_KINDS`.
    """
    if name not in known_cards() and name in VERIFIER_KINDS and stands_alone(name):
        return VerifierCard(None, VerifierTable(name=name, title=title_of(name), kind=name, models=()))
    file = read_card(name)
    if "kind" not in file.table:
        raise UnknownCard(f"{name!r} is a model's card, not a verifier's")
    try:
        return VerifierCard(file, VerifierTable.model_validate(file.table))
    except ValidationError as error:
        raise BadCard(f"the card {file.path}: {reasons(error)}") from error
