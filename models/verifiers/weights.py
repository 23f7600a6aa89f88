"""Reading the weights of verifiers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sitsearch.models.errors import BadWeights
from sitsearch.models.loading.checkpoint import read_checkpoint
from sitsearch.models.loading.finite import check_finite
from sitsearch.models.loading.pickles import check_pickle
from sitsearch.models.verifiers.base import Weights


def read_state(weights: Weights, *, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of a weights file, or of a state dict as it is.

    Args:
        weights: what `sitsearch.models.loading.checkpoint.read_checkpoint` reads; a file of `torch.save` only if its
            checksum is known, see `sitsearch.models.loading.pickles`; or a state dict.
        sha256: the file's checksum, in hexadecimal.

    Raises:
        BadWeights: the file is missing, is not one of these, holds more than tensors, or has another checksum.
    """
    if isinstance(weights, Mapping):
        return dict(weights)
    check_pickle(Path(weights), sha256)
    return read_checkpoint(Path(weights))


def load_pretrained(model: Any, folder: Path, device: str) -> Any:
    """An instance of a transformers model class from a folder of its `save_pretrained`, frozen, in float32.

    Raises:
        BadWeights: the weights cannot be read, do not fit the folder's configuration, are not all there or not finite.
    """
    try:
        net, report = model.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, RuntimeError) as error:
        raise BadWeights(f"{folder} does not load: {error}") from error
    if report["missing_keys"]:
        raise BadWeights(f"{folder} lacks {sorted(report['missing_keys'])[:3]}")
    check_finite(net.named_parameters(), folder)
    return net.to(device).float().eval().requires_grad_(False)


def require_folder(weights: Weights, *needed: str) -> Path:
    """The folder `weights`, with the files `needed` (glob patterns) in it.

    Raises:
        BadWeights: it is not a folder, or one of them is missing.
    """
    if isinstance(weights, Mapping):
        raise BadWeights("this kind of verifier loads a folder, not a state dict")
    folder = Path(weights)
    if not folder.is_dir():
        raise BadWeights(f"{folder} is not a folder")
    for pattern in needed:
        if not any(folder.glob(pattern)):
            raise BadWeights(f"{folder} has no {pattern}")
    return folder
