"""Is an image what its file says: made by this recipe, with these weights, the best of that log?

Everything is done again, from the file's own text chunks: the image by its recipe, its scores by its verifiers, the
search by its log, and some of the log's other candidates, drawn at random.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from sitsearch.models.catalog import load_generator, load_verifier, model_card
from sitsearch.models.generator import Generator
from sitsearch.models.verifiers.base import Verifier
from sitsearch.models.verifiers.scoring import Scorer
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.fingerprints import judge_print
from sitsearch.workers.engine.gradients import Here
from sitsearch.workers.engine.judge import judges_sets, scores_by_name
from sitsearch.workers.engine.offers import METHODS, method_named
from sitsearch.workers.engine.orders import conditions_of, orders_of
from sitsearch.workers.engine.trajectory import Sample
from sitsearch.workers.errors import SitsearchError
from sitsearch.workers.jobs.fingerprint import Fingerprint, Origin
from sitsearch.workers.jobs.images import decode_png
from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.logged import LoggedRound, parse
from sitsearch.workers.jobs.merkle import MerkleTree
from sitsearch.workers.jobs.proof import Proof, proof_in
from sitsearch.workers.local import sample_all
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.runs.start import Run, start_run

#: Candidates that are made again at once.
TOGETHER = 64
#: Rows of a forward, where the file does not say.
BATCH = 32

Outcome = Literal["holds", "fails", "open"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: it `holds`, or it `fails`, or it is `open`, as it could not be found out here."""

    name: str
    outcome: Outcome
    detail: str


@dataclass
class Verdict:
    """What was looked at, in order.

    Attributes:
        proof: what the file says.
        checks: what became of it.
    """

    proof: Proof
    checks: list[Check] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        """`fails` if anything does, else `open` if anything is, else `holds`."""
        found = {check.outcome for check in self.checks}
        return "fails" if "fails" in found else "open" if "open" in found else "holds"

    def say(self, name: str, outcome: Outcome, detail: str) -> None:
        """Note a check."""
        self.checks.append(Check(name, outcome, detail))


class Workshop:
    """What images are made and scored again with, kept from one verification to the next.

    Args:
        device: where networks compute.
        generators, verifiers: by their cards' names; others are loaded when they are first needed.

    Raises:
        ModelError: from its methods, see `load_generator` and `load_verifier`.
    """

    def __init__(
        self,
        *,
        device: str = "cpu",
        generators: Mapping[str, Generator] | None = None,
        verifiers: Mapping[str, Verifier] | None = None,
    ) -> None:
        self.device, self._given = device, dict(generators or {})
        self._verifiers = dict(verifiers or {})
        self._engines: dict[tuple[str, Fingerprint], Engine] = {}
        self._scorers: dict[tuple[str, int], Scorer] = {}

    def engine(self, model: str, like: Fingerprint) -> Engine:
        """An engine that computes as `like` says."""
        if like.threads:
            torch.set_num_threads(like.threads)
        if (model, like) not in self._engines:
            generator = self._given.get(model)
            if generator is None:
                dtype = getattr(torch, like.dtype or "float32")
                generator = load_generator(model, device=self.device, dtype=dtype)
                if like.compiled:
                    generator.compile()
            engine = Engine(generator, batch=like.batch or BATCH, deterministic=like.deterministic is not False)
            self._engines[model, like] = engine
        return self._engines[model, like]

    def verifier(self, name: str) -> Verifier:
        """The verifier of a card."""
        if name not in self._verifiers:
            self._verifiers[name] = load_verifier(name, device=self.device)
        return self._verifiers[name]

    def scorer(self, name: str, batch: int) -> Scorer:
        """Scores by the verifier, up to `batch` images a call."""
        if (name, batch) not in self._scorers:
            self._scorers[name, batch] = Scorer(self.verifier(name), batch=batch)
        return self._scorers[name, batch]


def verify(
    png: bytes,
    log: Iterable[str] | None = None,
    *,
    spot: int = 0,
    seed: int | None = None,
    workshop: Workshop | None = None,
) -> Verdict:
    """Hold an image of a finished search against what its file says.

    Args:
        png: the file.
        log: the job's log, a round a line, as `GET /jobs/{id}/log` answers it; without one, only the image itself is
            looked at.
        spot: how many of the log's candidates are made and scored again besides.
        seed: of the draw of these; None is another each time, so that nobody can know before.
        workshop: what it is done with; None is a new one, on the CPU.

    Returns:
        What holds, what fails and what could not be found out: bits are compared where this process computes as the
        one that made them did, and are `open` where they differ on another device or another torch.

    Raises:
        ValueError: the file carries no proof.
        ModelError: see `load_generator` and `load_verifier`.
    """
    verdict = Verdict(proof_in(png))
    replayed = None if log is None else _replay(verdict, log, spot, random.Random(seed))
    again = _Again(verdict.proof, workshop or Workshop())
    again.compare_weights(verdict)
    _image(verdict, png, again, replayed)
    if replayed is not None and replayed.spots:
        _spots(verdict, again, replayed.spots)
    return verdict


@dataclass
class _Replayed:
    """What the log says.

    Attributes:
        winner: the proposal that the log's best answers.
        spots: proposals that were drawn, and what became of them.
    """

    winner: Proposal | None = None
    spots: list[tuple[Proposal, Candidate]] = field(default_factory=list)


def _replay(verdict: Verdict, log: Iterable[str], spot: int, draw: random.Random) -> _Replayed:
    """Run the search again by its log: root, every proposal, and the best."""
    proof, found, tree, seen = verdict.proof, _Replayed(), MerkleTree(), 0
    rounds = 0 if proof.log is None else proof.log.rounds
    run = start_run(proof.request, method_named(proof.request.sampler.method), METHODS.values())
    extensions = [extension for extension in proof.extensions if extension.after_round < rounds]
    proposed: dict[str, Proposal] = {}
    try:
        for text in log:
            if tree.size == rounds:  # the job was extended since
                break
            tree.append(text.encode())
            entry = parse(text)
            run.extend_where_due(extensions)
            asked = _asked(run, entry)
            run.replay_one(entry, extensions)
            told = run.log().candidates if asked else ()
            keep = {candidate.id for candidate in run.best}
            proposed = {p.id: p for p in (*proposed.values(), *asked) if p.id in keep}
            for proposal, candidate in zip(asked, told, strict=True):  # a reservoir: each is drawn with one chance
                seen += 1
                if len(found.spots) < spot:
                    found.spots.append((proposal, candidate))
                elif (place := draw.randrange(seen)) < spot:
                    found.spots[place] = proposal, candidate
    except SitsearchError as error:
        verdict.say("log", "fails", f"it is not a log of this search: {error}")
        return found
    if proof.log is None or tree.size != rounds or tree.root != proof.log.root:
        verdict.say("log", "fails", f"its {tree.size} rounds are not the {rounds} that the file vouches for")
        return found
    verdict.say("log", "holds", f"{tree.size} rounds, {seen} candidates, root {tree.root[:16]}")
    over = proof.stopped_by in ("canceled", "failed", "seconds") or not (run.ask() or run.to_choose)
    best = run.result_so_far(proof.stopped_by).images[proof.rank : proof.rank + 1] if run.best else ()
    if not over:
        verdict.say("search", "fails", "by its log it was not over: rounds are missing at the end")
    elif not best or best[0].candidate != proof.candidate:
        verdict.say("search", "fails", f"by its log the image of rank {proof.rank} is another")
    else:
        verdict.say("search", "holds", f"run again by its log, it finds this image at rank {proof.rank}")
        found.winner = proposed.get(proof.candidate.id)
    return found


def _asked(run: Run, entry: LoggedRound) -> tuple[Proposal, ...]:
    return run.asked_in(entry) if entry.choice is None else ()


class _Again:
    """Makes and scores candidates as the proof's origins did."""

    def __init__(self, proof: Proof, workshop: Workshop) -> None:
        self.proof, self.made_by = proof, Origin()
        for origin in proof.origins:  # the last word on each
            self.made_by = Origin(
                samplers=origin.samplers or self.made_by.samplers, verifiers=self.made_by.verifiers | origin.verifiers
            )
        theirs = self.made_by.samplers[0] if self.made_by.samplers else Fingerprint()
        self.engine = workshop.engine(proof.request.model, theirs)
        self.verifiers = {name: workshop.verifier(name) for _, name in proof.request.verifiers}
        self.engine.guides = Here(self.verifiers, self.engine.generator.decoder, batch=self.engine.batch)
        batches = {name: print.batch for name, print in self.made_by.verifiers.items()}
        self._scorers = {name: workshop.scorer(name, batches.get(name) or self.engine.batch) for name in self.verifiers}
        self.selecting = proof.request.verifier.names
        self._preview = any("preview" in self.verifiers[name].needs for name in self.selecting)
        card = model_card(proof.request.model) if proof.class_indices else None
        classes, template = (card.classes, card.template) if card is not None else ((), None)
        self._conditions = conditions_of(proof.request, proof.class_indices, classes, template)

    @property
    def prints(self) -> list[tuple[str, Fingerprint, Fingerprint]]:
        """Name, theirs and ours, of the sampler and of every verifier that selected."""
        ours, theirs = self.engine.fingerprint, self.made_by.samplers
        device = self.engine.generator.device
        # of several samplers the likest
        likest = min(theirs, key=lambda one: len(one.differences(ours)), default=Fingerprint())
        found = [("sampler", likest, ours)]
        for name in self.selecting:
            mine = judge_print(self.verifiers[name], device=device, batch=self._scorers[name].batch)
            found.append((name, self.made_by.verifiers.get(name, Fingerprint()), mine))
        return found

    @property
    def alike(self) -> bool:
        """This process computes as theirs did, as far as it is known."""
        fields = ("torch", "device", "dtype", "deterministic", "compiled")
        return all(
            getattr(theirs, name) == getattr(ours, name) for _, theirs, ours in self.prints for name in fields
        ) and all(len(origin.samplers) <= 1 for origin in self.proof.origins)

    def compare_weights(self, verdict: Verdict) -> None:
        """Whether networks and verifiers are those that the file names."""
        for name, theirs, ours in self.prints:
            label = f"weights of {self.proof.request.model if name == 'sampler' else name}"
            if not theirs.weights or not ours.weights:
                verdict.say(label, "open", "there is no checksum to compare")
            elif theirs.weights != ours.weights:
                verdict.say(label, "fails", f"the file names {theirs.weights[:12]}, here they are {ours.weights[:12]}")
            else:
                verdict.say(label, "holds", theirs.weights[:12])

    def make(self, proposals: Sequence[Proposal]) -> Sequence[Sample]:
        """The proposals' samples."""
        orders = orders_of(proposals, self.proof.request.sampler, self._conditions, preview=self._preview)
        return sample_all(self.engine, orders)

    def score(self, pictures: Tensor, of: Sequence[Candidate], previews: Tensor | None) -> list[dict[str, float]]:
        """What the selecting verifiers say."""
        conditions = [self._conditions[candidate.condition] for candidate in of]
        return scores_by_name(self._scorers, self.selecting, pictures, conditions, previews)

    @property
    def judges_each(self) -> bool:
        """The verifiers that selected look at each image by itself."""
        return not any(judges_sets(self.verifiers[name]) for name in self.selecting)


def _image(verdict: Verdict, png: bytes, again: _Again, replayed: _Replayed | None) -> None:
    """The file's own pixels and scores."""
    candidate = verdict.proof.candidate
    proposal = replayed.winner if replayed is not None else None
    if proposal is None:
        if candidate.recipe.guide is not None and candidate.recipe.guide.by == "lookahead":
            return verdict.say("image", "open", "what guided it are other samples of its search: give the log")
        nfe = max(1, candidate.nfe)
        proposal = Proposal(id=candidate.id, recipe=candidate.recipe, nfe=nfe, condition=candidate.condition)
    (sample,) = again.make([proposal])
    shown = torch.from_numpy(decode_png(png).copy())
    if sample.image.shape != shown.shape:
        detail = f"its size is {tuple(shown.shape)}, made again it is {tuple(sample.image.shape)}"
        return verdict.say("image", "fails", detail)
    differing = int((sample.image != shown).any(dim=-1).sum())
    if not differing:
        verdict.say("image", "holds", "made again by its recipe, every pixel is the same")
    else:
        detail = f"made again by its recipe, {differing} of {shown.shape[0] * shown.shape[1]} pixels differ"
        verdict.say("image", *_unlike(again, detail))
    if not again.judges_each:
        return verdict.say("scores", "open", "its verifier judges sets of images")
    previews = None if sample.preview is None else sample.preview[None]
    (scores,) = again.score(shown[None], [candidate], previews)
    said = {name: candidate.scores[name] for name in again.selecting}
    if scores == said:
        return verdict.say("scores", "holds", ", ".join(f"{name} {score:.6g}" for name, score in scores.items()))
    verdict.say("scores", *_unlike(again, f"scored again: {scores}, in the file: {said}"))


def _spots(verdict: Verdict, again: _Again, spots: Sequence[tuple[Proposal, Candidate]]) -> None:
    """Candidates drawn from the log, made and scored again."""
    if not again.judges_each:
        return verdict.say("spots", "open", "their verifier judges sets of images")
    wrong: list[str] = []
    for start in range(0, len(spots), TOGETHER):
        part = spots[start : start + TOGETHER]
        samples = again.make([proposal for proposal, _ in part])
        pictures = torch.stack([sample.image for sample in samples])
        early = [sample.preview for sample in samples if sample.preview is not None]
        scores = again.score(pictures, [candidate for _, candidate in part], torch.stack(early) if early else None)
        wrong += [
            candidate.id
            for (_, candidate), found in zip(part, scores, strict=True)
            if not candidate.invalid and any(candidate.scores[name] != found[name] for name in found)
        ]
    if not wrong:
        return verdict.say("spots", "holds", f"{len(spots)} candidates made and scored again, all as in the log")
    verdict.say("spots", *_unlike(again, f"{len(wrong)} of {len(spots)} candidates have other scores: {wrong[:5]}"))


def _unlike(again: _Again, detail: str) -> tuple[Outcome, str]:
    """What a difference in bits means here: a fault, or, on another device, nothing for sure."""
    if again.alike:
        return "fails", detail
    found = [f"{name}'s {text}" for name, theirs, ours in again.prints for text in theirs.differences(ours)]
    return "open", f"{detail}; but this machine computes otherwise ({'; '.join(found)})"
