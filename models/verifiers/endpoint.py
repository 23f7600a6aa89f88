"""Calls to an HTTP endpoint of the operator's: time-outs, retries, a limit on how many at once."""

from __future__ import annotations

import base64
import io
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import torch
from PIL import Image
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from torch import Tensor

from sitsearch.models.verifiers.errors import BadOptions, VerifierUnavailable

Answer = TypeVar("Answer")

#: Statuses that may be gone the next time.
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
#: Longest wait between two tries, in seconds, whatever the endpoint asks for.
LONGEST_WAIT = 60.0


class Endpoint:
    """One address to which JSON is posted. Its connections are kept; it may be used from several threads.

    A connection that fails, a time-out, a status of `PASSING` and an answer that is not as agreed are tried again,
    after the endpoint's `Retry-After`, or after `backoff` seconds doubled each time and varied by chance. Redirects are
    not followed, so that requests go nowhere but where the operator said.

    Args:
        url: where to post.
        key_env: environment variable with a key, sent as `Authorization: Bearer`; None for no key.
        timeout: seconds for each try.
        retries: tries after the first.
        backoff: see above.
        concurrency: calls at once.

    Raises:
        BadOptions: the address is not http or https, or the variable is not set.
    """

    def __init__(
        self, url: str, *, key_env: str | None, timeout: float, retries: int, backoff: float, concurrency: int
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadOptions(f"{url!r} is not an http or https address")
        headers = {}
        if key_env is not None:
            if not os.environ.get(key_env):
                raise BadOptions(f"{key_env}, the environment variable with the key of {parts.hostname}, is not set")
            headers["Authorization"] = f"Bearer {os.environ[key_env]}"
        self.url, self.name = url, f"{parts.hostname}{parts.path}"
        self.retries, self.backoff = retries, backoff
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        self._client = httpx.Client(timeout=timeout, headers=headers, limits=limits)
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="verifier")

    def post_all(self, bodies: Sequence[dict[str, Any]], read: Callable[[dict[str, Any], Any], Answer]) -> list[Answer]:
        """The answers to `bodies`, in their order.

        Args:
            bodies: what to post, one request each.
            read: takes what was posted and the answer's JSON, and makes the answer of it; raises ValueError, KeyError,
                IndexError or TypeError for one that is not as agreed.

        Raises:
            VerifierUnavailable: one of them was not answered; those that have not begun are dropped.
        """
        calls = [self._pool.submit(self._post, body, read) for body in bodies]
        try:
            return [call.result() for call in calls]
        finally:
            for call in calls:
                call.cancel()

    def _post(self, body: dict[str, Any], read: Callable[[dict[str, Any], Any], Answer]) -> Answer:
        tries = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, _Failed) and error.passing),
            stop=stop_after_attempt(1 + self.retries),
            wait=self._pause,
            reraise=True,
        )
        try:
            return tries(self._try, body, read)
        except _Failed as failed:
            count = tries.statistics["attempt_number"]
            raise VerifierUnavailable(f"{self.name} after {count} tries: {failed}") from failed

    def _try(self, body: dict[str, Any], read: Callable[[dict[str, Any], Any], Answer]) -> Answer:
        try:
            reply = self._client.post(self.url, json=body)
            if reply.status_code == 200:
                return read(body, reply.json())
        except httpx.TimeoutException as error:
            raise _Failed(f"no answer within {self._client.timeout.read} s") from error
        except httpx.TransportError as error:
            raise _Failed(f"cannot reach it: {error}") from error
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise _Failed(f"the answer is not as agreed: {type(error).__name__}: {error}") from error
        reason = f"status {reply.status_code}: {reply.text[:200]}"
        raise _Failed(reason, passing=reply.status_code in PASSING, asked=reply.headers.get("Retry-After"))

    def _pause(self, state: RetryCallState) -> float:
        """Seconds before the next try: what the endpoint asked for, or else a time that doubles, give or take half."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _Failed) and error.asked is not None and error.asked.isdigit():
            return min(float(error.asked), LONGEST_WAIT)
        backoff: float = self.backoff * 2 ** (state.attempt_number - 1)
        return min(backoff * random.uniform(0.5, 1.5), LONGEST_WAIT)


class _Failed(Exception):
    """One try did not give an answer.

    Attributes:
        passing: another may.
        asked: what the endpoint says of when, if it does.
    """

    def __init__(self, reason: str, *, passing: bool = True, asked: str | None = None) -> None:
        super().__init__(reason)
        self.passing, self.asked = passing, asked


def png_base64(image: Tensor, *, at_least: int = 1) -> str:
    """An image as PNG in base64.

    Args:
        image: `[3, H, W]` float32 in [0, 1].
        at_least: least length of the shorter edge; a smaller image is enlarged by a whole factor, pixels kept sharp.
    """
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    picture = Image.fromarray(pixels.cpu().numpy(), "RGB")
    factor = -(-at_least // min(picture.size))
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
