"""Every Redis key of the service, what it holds and how long it lives.

`P` is the settings' `key_prefix` in braces: a hash tag, so that all keys of a deployment share one slot and the scripts
may touch several of them. An id comes last in its key, so no id can be mistaken for another key.

    P:job:<id>            hash    the job's fields, one JSON text each, and its claim (see `store`)   [1]
    P:rounds:<id>         list    the round log: a `Round` each, packed, in order; the truth          [1]
    P:curve:<id>          list    JSON of `CurvePoint`, by NFE                                        [1]
    P:events:<id>         stream  what happened to the job: `type` and JSON `data`; newest ~1000      [1]
    P:images:<id>         hash    PNG bytes of the best candidates so far, by candidate id            [2]
    P:shown:<id>          hash    what pages show of each round: a packed `ShownRound` each, by number [2]
    P:thumbnails:<id>     hash    WebP bytes of shown candidates, by candidate id                     [2]
    P:waiting             zset    the queue: waiting jobs in order of submission
    P:owed                hash    NFE that each waiting job may spend, by id, and under '' their sum
    P:leases              zset    running jobs by when their lease ends, in the server's milliseconds
    P:wakeups             stream  `job` = id, of jobs that began to wait; newest ~100
    P:cancellations       stream  `job` = id, of running jobs that were canceled; newest ~1000
    P:submitted           string  count of jobs ever submitted, which gives `waiting` its order
    P:jobs                zset    all jobs by time of creation                                        [3]
    P:jobs:<status>       zset    those of one status                                                 [3]
    P:expiry              zset    ended jobs by the time at which their records expire                [3]
    P:idempotency:<hash>  hash    `job`, its `key` and the body `digest`, by hash of a client's key   [4]
    P:tight               string  what the store is short of, while it is; set by who runs it
    P:offer               string  JSON of `Offer`: what the workers offer                             [5]
    P:workers             zset    names of workers by the time of their last report                   [5]
    P:worker:<name>       hash    a worker's figures                                                  [5]
    P:lessons:<names>     hash    sums that finished jobs added to, of a model and a verifier         [6]

`waiting` and `leases` can be made again from `jobs:queued` and `jobs:running`, and are where they lack a job.

How long they live:
    [1] `job_ttl` after the job's end; until then for ever
    [2] `image_ttl` after the last change
    [3] for ever; an id leaves when its record has expired
    [4] IDEMPOTENCY_TTL
    [5] `offer_ttl` after the last report
    [6] LESSONS_TTL after the last job that added to it
    The others live for ever and are bounded by `max_queued` and by the jobs under way.
"""

from __future__ import annotations

import hashlib
import json

from sitsearch.workers.jobs.job import Status

#: Seconds for which an idempotency key is remembered.
IDEMPOTENCY_TTL = 86_400.0
#: About how many of a job's events are kept; a reader that fell further behind gets a new snapshot.
EVENTS_KEPT = 1000
#: About how many cancellations are kept; a coordinator that fell further behind learns of them from its leases.
CANCELLATIONS_KEPT = 1000
#: Seconds for which what jobs have taught is remembered, and jobs after which all of it counts for half.
LESSONS_TTL, LESSONS_KEPT = 90 * 86_400.0, 256
#: About how many wake-ups are kept; who fell further behind looks at the queue anyway.
WAKEUPS_KEPT = 100


class Keys:
    """The keys of one deployment.

    Args:
        prefix: the settings' `key_prefix`.
    """

    def __init__(self, prefix: str) -> None:
        self.root = f"{{{prefix}}}"
        self.waiting = f"{self.root}:waiting"
        self.owed = f"{self.root}:owed"
        self.leases = f"{self.root}:leases"
        self.wakeups = f"{self.root}:wakeups"
        self.cancellations = f"{self.root}:cancellations"
        self.submitted = f"{self.root}:submitted"
        self.jobs = f"{self.root}:jobs"
        self.expiry = f"{self.root}:expiry"
        self.offer = f"{self.root}:offer"
        self.workers = f"{self.root}:workers"
        self.tight = f"{self.root}:tight"

    def job(self, job_id: str) -> str:
        """The job's record."""
        return f"{self.root}:job:{job_id}"

    def rounds(self, job_id: str) -> str:
        """The job's round log."""
        return f"{self.root}:rounds:{job_id}"

    def curve(self, job_id: str) -> str:
        """The job's curve."""
        return f"{self.root}:curve:{job_id}"

    def images(self, job_id: str) -> str:
        """The job's images."""
        return f"{self.root}:images:{job_id}"

    def shown(self, job_id: str) -> str:
        """What pages show of the job's rounds."""
        return f"{self.root}:shown:{job_id}"

    def thumbnails(self, job_id: str) -> str:
        """Small pictures of the candidates that are shown."""
        return f"{self.root}:thumbnails:{job_id}"

    def own(self, job_id: str) -> list[str]:
        """What belongs to the job besides its record: round log, curve, events and images."""
        return [self.rounds(job_id), self.curve(job_id), self.events(job_id), self.images(job_id)]

    def events(self, job_id: str) -> str:
        """The job's event stream."""
        return f"{self.root}:events:{job_id}"

    def of_status(self, status: Status) -> str:
        """The index of jobs in `status`."""
        return f"{self.root}:jobs:{status}"

    def indexes(self) -> list[str]:
        """Every index that an expired job must leave: all jobs first, then by status."""
        return [self.jobs, *(self.of_status(status) for status in Status)]

    def idempotency(self, key: str) -> str:
        """Where a client's idempotency key is remembered; hashed, so its length and characters do not matter."""
        return f"{self.root}:idempotency:{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"

    def worker(self, name: str) -> str:
        """A worker's figures."""
        return f"{self.root}:worker:{name}"

    def lessons(self, model: str, verifier: str) -> str:
        """What finished jobs with this model and verifier have taught; JSON, so that no two pairs are alike."""
        return f"{self.root}:lessons:{json.dumps([model, verifier])}"
