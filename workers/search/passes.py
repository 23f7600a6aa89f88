"""What searches that go in passes share: how large the next pass may be, and what is done with the rest.

A pass starts from fresh noise and ends in finished candidates; it is begun only when all of it fits. What no pass fits
into goes to plain trajectories, so that no algorithm leaves a whole trajectory's NFE unspent, and the smallest budget
that an algorithm works at is that of the images wanted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.search.base import Allowance, Proposal, State, advance

#: Plain trajectories that are proposed together.
PLAIN_ROUND = 16
#: A budget is split over equal passes, which may be larger than an algorithm's cap by this part of it, in percent.
SLACK = 10
#: What `Search.chosen` says of a budget that buys no pass.
NO_PASS: Mapping[str, Any] = {"passes": "none fits: random search"}


class PassState(State):
    """Base of the state of a search that goes in passes.

    Attributes:
        finished: finished candidates (t = 1) that were told so far.
    """

    finished: int = 0

    def room(self, finishing: int) -> int:
        """NFE that the pass under way, or the next one, may take if it ends in `finishing` finished candidates.

        The other candidates that are still wanted are kept aside for, as plain trajectories.
        """
        return self.left - max(0, self.allowance.keep - self.finished - finishing) * self.sampling.whole

    def share(self, most: int) -> int:
        """NFE of the next pass, where room is split over the fewest equal passes of about `most` NFE at most.

        For passes that end in one finished candidate each, and cost a whole trajectory or more.
        """
        passes, wanted = 1, self.allowance.keep - self.finished
        while passes < wanted and equal_part(self.room(passes), most, passes) < self.room(passes) // passes:
            passes += 1  # and so many candidates fewer need be kept aside for
        return equal_part(self.room(passes), most, passes)

    def plain(self) -> tuple[Proposal, ...]:
        """Trajectories from fresh noise to the end, as many as fit, at most `PLAIN_ROUND`."""
        count = min(PLAIN_ROUND, self.left // self.sampling.whole)
        return tuple(self.propose(index, self.trajectory(index)) for index in range(count))


P = TypeVar("P", bound=PassState)


def equal_part(room: int, most: int, least: int = 1) -> int:
    """`room` NFE over the fewest equal passes of about `most` NFE at most, but over `least` passes or more."""
    limit = most + most * SLACK // 100
    return room // max(least, -(-room // limit))


def least_plain(allowance: Allowance) -> int:
    """The smallest budget of a search whose every pass can shrink to plain trajectories."""
    return allowance.keep * allowance.sampling.whole


def advance_pass(state: P, proposals: Sequence[Proposal], candidates: Sequence[Candidate], **changes: Any) -> P:
    """`base.advance`, with the finished candidates counted.

    Raises:
        SearchError: `candidates` do not answer `proposals`.
    """
    finished = state.finished + sum(proposal.recipe.finished for proposal in proposals)
    return advance(state, proposals, candidates, finished=finished, **changes)
