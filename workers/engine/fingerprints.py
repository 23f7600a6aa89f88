"""What the results of this process depend on besides its inputs."""

from __future__ import annotations

import torch

from sitsearch.models.generator import Generator
from sitsearch.workers.jobs.fingerprint import Fingerprint


def fingerprint_of(generator: Generator, *, batch: int, deterministic: bool) -> Fingerprint:
    """Of samples that a generator makes in forwards of up to `batch` rows."""
    dtype = getattr(generator, "dtype", None)
    return _here(generator, generator.device).model_copy(
        update={
            "dtype": None if dtype is None else str(dtype).removeprefix("torch."),
            "batch": batch,
            "deterministic": deterministic,
            "compiled": getattr(generator, "compiled", False),
        }
    )


def judge_print(verifier: object, *, device: str | torch.device, batch: int) -> Fingerprint:
    """Of a verifier's scores in calls of up to `batch` images."""
    return _here(verifier, torch.device(device)).model_copy(update={"batch": batch})


def _here(network: object, device: torch.device) -> Fingerprint:
    """What all networks of this process share on a device, and the network's weights, if it was loaded from a card."""
    on_cuda = device.type == "cuda"
    return Fingerprint(
        weights=getattr(network, "digest", ""),
        torch=torch.__version__,
        device=torch.cuda.get_device_name(device) if on_cuda else f"CPU {torch.backends.cpu.get_cpu_capability()}",
        threads=None if on_cuda else torch.get_num_threads(),
    )
