"""A tiny network with random weights, where the tests of the engine run."""

from __future__ import annotations

import os

import torch

from sitsearch.models.generator import SiTGenerator
from sitsearch.models.sit import SiT, SiTConfig

#: The tests of the engine run on any device: `SITSEARCH_TEST_DEVICE=cuda pytest tests/workers/engine`.
DEVICE = os.environ.get("SITSEARCH_TEST_DEVICE", "cpu")


def tiny_generator(interpolant: str = "Linear", prediction: str = "velocity") -> SiTGenerator:
    """8x8 RGB, 5 classes; weights everywhere, also where training starts from zero."""
    torch.manual_seed(0)
    net = SiT(SiTConfig(8, 4, 3, 16, 2, 2, 5, learn_sigma=False))
    for parameter in net.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return SiTGenerator(net.eval().to(DEVICE), interpolant=interpolant, prediction=prediction)
