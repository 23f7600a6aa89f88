"""Is every forged image caught, and no honest one accused?

`python -m sitsearch.workers.studies.tampering --trials 1000`.

Small searches of every algorithm are run, and their images verified (`sitsearch.workers.verify`), as they are and
tampered with in each of the ways of `TAMPERINGS`. Prints how many of each held and failed, and ends with exit code 1
unless all honest ones held and all others failed.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

import torch

from sitsearch.models.catalog import load_generator, load_verifier, model_card
from sitsearch.models.generator import Generator
from sitsearch.models.verifiers.base import Verifier
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.orders import conditions_of
from sitsearch.workers.jobs.chunks import with_text
from sitsearch.workers.jobs.images import decode_png, encode_png
from sitsearch.workers.jobs.job import Candidate, Job, LogDigest
from sitsearch.workers.jobs.logged import LoggedRound, parse
from sitsearch.workers.jobs.merkle import MerkleTree
from sitsearch.workers.jobs.proof import KEYWORD, Proof, proof_in, with_proof
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.local import run_request
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.verify import Workshop, verify

MODEL, VERIFIER = "glyphs", "classifier"
STEPS, CANDIDATES = 4, 8
#: Candidates that are made again each time: more than any of the searches has.
SPOT = 100


@dataclass(frozen=True)
class Claim:
    """What a provider hands out: a picture, what it says of it, and the log."""

    picture: bytes
    proof: Proof
    log: tuple[str, ...]

    def saying(self, log: Sequence[str], **changes: object) -> Claim:
        """The claim with another log, to which its tree hash fits, and other things said in its proof."""
        digest = LogDigest(root=MerkleTree(text.encode() for text in log).root, rounds=len(log))
        return replace(self, log=tuple(log), proof=self.proof.model_copy(update={"log": digest, **changes}))

    @property
    def file(self) -> bytes:
        """The PNG file."""
        return with_text(self.picture, KEYWORD, self.proof.model_dump_json(ensure_ascii=True))


def honest(engine: Engine, verifiers: Mapping[str, Verifier], algorithm: str, seed: int) -> Claim:
    """What comes of a small search."""
    search = ALGORITHMS[algorithm]
    draw = random.Random(seed)
    request = GenerateRequest.model_validate(
        {
            "model": MODEL,
            "condition": {"class": draw.choice("AEQWaegkqw37")},
            "budget": {"nfe": STEPS * CANDIDATES},
            "verifier": VERIFIER,
            "search": algorithm,
            "sampler": {"method": "glass" if search.stochastic else "euler", "steps": STEPS, "guidance": 1},
            "seed": seed,
        }
    )
    card = model_card(MODEL)
    indices = (card.classes.index(str(request.condition.class_)),)
    conditions = conditions_of(request, indices, card.classes, card.template)
    found = run_request(engine, verifiers, request, conditions=conditions)
    job = Job(id=f"{algorithm}-{seed}", request=request, class_indices=indices, created_at=0)
    picture = encode_png(found.images[0].numpy(), found.result.images[0].candidate)
    return Claim(picture, proof_in(with_proof(picture, 0, found.result, job)), found.log)


def pixel(claim: Claim, draw: random.Random) -> Claim:
    """One value of one pixel is another."""
    image = decode_png(claim.picture).copy()
    place = tuple(draw.randrange(size) for size in image.shape)
    image[place] ^= 1 << draw.randrange(8)
    return replace(claim, picture=encode_png(image, claim.proof.candidate))


def score(claim: Claim, draw: random.Random) -> Claim:
    """The winner's score is higher than it was, in the file and in the log."""
    better = claim.proof.candidate.scores[VERIFIER] + draw.uniform(1e-4, 1)
    candidate = claim.proof.candidate.model_copy(update={"scores": {VERIFIER: better}})
    return claim.saying([_scored(text, claim.proof.candidate, better) for text in claim.log], candidate=candidate)


def dropped(claim: Claim, draw: random.Random) -> Claim:
    """A candidate other than the winner is left out of the log."""
    rounds = [parse(text) for text in claim.log]
    place = draw.choice([i for i, entry in enumerate(rounds) if len(entry.nfe) > 1])
    columns = {name: value[:-1] for name in ("nfe", "forwards", "gradients") if (value := getattr(rounds[place], name))}
    scores = {name: column[:-1] for name, column in rounds[place].scores.items()}
    rounds[place] = rounds[place].model_copy(update={**columns, "scores": scores, "_text": None})
    return claim.saying([_text(entry) for entry in rounds])


def cut(claim: Claim, draw: random.Random) -> Claim:
    """The search was not carried out to its end, and says it was."""
    return claim.saying(claim.log[: draw.randrange(len(claim.log))])


def recipe(claim: Claim, draw: random.Random) -> Claim:
    """The file names another noise than the image was made of."""
    candidate = claim.proof.candidate
    other = candidate.recipe.model_copy(update={"index": candidate.recipe.index + 1})
    named = candidate.model_copy(update={"recipe": other})
    return replace(claim, proof=claim.proof.model_copy(update={"candidate": named}))


def invented(claim: Claim, draw: random.Random) -> Claim:
    """Half of the log's scores, not the winner's, were never computed."""
    best = claim.proof.candidate.scores[VERIFIER]
    rounds = [parse(text) for text in claim.log]
    for place, entry in enumerate(rounds):
        column = tuple(
            value if value >= best or draw.random() < 0.5 else value - draw.uniform(0.01, 1)
            for value in entry.scores[VERIFIER]
        )
        rounds[place] = entry.model_copy(update={"scores": {VERIFIER: column}})
    log = [_text(entry) for entry in rounds]
    return claim.saying(log if log != list(claim.log) else [*claim.log, claim.log[-1]])


def _scored(text: str, candidate: Candidate, better: float) -> str:
    """A round in which the candidate's score is another."""
    entry = parse(text)
    old = candidate.scores[VERIFIER]
    column = tuple(better if value == old else value for value in entry.scores[VERIFIER])
    return _text(entry.model_copy(update={"scores": {VERIFIER: column}}))


def _text(entry: LoggedRound) -> str:
    return entry.model_dump_json()


Tampering = Callable[[Claim, random.Random], Claim]
#: By name; `weights`, a network that is not the one named, is made by sampling with another.
TAMPERINGS: dict[str, Tampering] = {
    "pixel": pixel,
    "score": score,
    "dropped": dropped,
    "cut": cut,
    "recipe": recipe,
    "invented": invented,
    "weights": lambda claim, draw: claim,
}


def other_weights(name: str) -> Generator:
    """The network with one weight changed, under the checksum of the true one."""
    generator = load_generator(name)
    with torch.no_grad():
        next(iter(generator.net.final_layer.parameters())).view(-1)[0] += 0.05  # type: ignore[attr-defined]
    return generator


def trials(kind: str, count: int, spot: int, seed: int = 0) -> Iterator[tuple[Claim, str]]:
    """So many claims of a kind, over all algorithms in turn, and what verification says of each."""
    verifiers = {VERIFIER: load_verifier(VERIFIER)}
    true = load_generator(MODEL)
    engine = Engine(other_weights(MODEL) if kind == "weights" else true)
    workshop = Workshop(generators={MODEL: true}, verifiers=verifiers)
    for number, algorithm in enumerate(islice(cycle(ALGORITHMS), count), start=seed):
        claim = honest(engine, verifiers, algorithm, number)
        if kind != "honest":
            claim = TAMPERINGS[kind](claim, random.Random(number))
        yield claim, verify(claim.file, claim.log, spot=spot, workshop=workshop).outcome


def main(arguments: Sequence[str]) -> int:
    """Count, print, and say whether all was as it must be: the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--trials", type=int, default=1000, help="honest ones, and as many tampered ones")
    parser.add_argument("--spot", type=int, default=SPOT, help="candidates that are made again each time")
    given = parser.parse_args(arguments)
    right = True
    for kind in ("honest", *TAMPERINGS):
        count = given.trials if kind == "honest" else -(-given.trials // len(TAMPERINGS))
        found = Counter(outcome for _, outcome in trials(kind, count, given.spot))
        right = right and found == {"holds" if kind == "honest" else "fails": count}
        print(
            f"{kind:9} {count:5} verified: {found['holds']} hold, {found['fails']} fail, {found['open']} open",
            flush=True,
        )
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
