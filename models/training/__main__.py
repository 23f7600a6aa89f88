"""Train a SiT: `python -m sitsearch.models.training CONFIG.toml --out FOLDER [--section.field VALUE ...]`.

The file is optional: everything in it can be said by flags, `--data.path photos --model.preset S/2`. FOLDER gets
`state.pt`, from which the same command goes on after an interruption, `ema.safetensors` and its model card NAME.toml.
Many GPUs: `torchrun --standalone --nproc_per_node 8 -m sitsearch.models.training CONFIG.toml --out FOLDER`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tomllib
from pathlib import Path
from typing import get_args

import torch
from accelerate import Accelerator
from pydantic import BaseModel, ValidationError

from sitsearch.models.errors import ModelError
from sitsearch.models.training.config import TrainingConfig, read_config
from sitsearch.models.training.loop import Trainer


def parser() -> argparse.ArgumentParser:
    """The command line: a file, a folder, and one flag for each setting."""
    made = argparse.ArgumentParser(
        prog="python -m sitsearch.models.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="python -m sitsearch.models.training [CONFIG.toml] --out FOLDER [--cpu] [--section.field VALUE ...]",
        allow_abbrev=False,
    )
    made.add_argument("config", type=Path, nargs="?")
    made.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the results go")
    made.add_argument("--cpu", action="store_true", help="leave the GPUs alone")
    for section, outer in TrainingConfig.model_fields.items():
        kind = next(k for k in (outer.annotation, *get_args(outer.annotation)) if isinstance(k, type))
        assert issubclass(kind, BaseModel)
        group = made.add_argument_group(section, (kind.__doc__ or "").replace("%", "%%"))
        for name, field in kind.model_fields.items():
            choices = "|".join(map(str, get_args(field.annotation))) if not field.description else ""
            default = "" if field.is_required() or field.default is None else f" (default {field.default})"
            text = (field.description or (choices if "class" not in choices else "")) + default
            group.add_argument(f"--{section}.{name}", metavar="VALUE", help=text.replace("%", "%%"))
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit status: 2 if the settings are wrong."""
    args = vars(parser().parse_args(arguments))
    overrides = {key: value for key, value in args.items() if "." in key and value is not None}
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    torch.set_float32_matmul_precision("high")  # TF32 where there is such a thing
    try:
        config = read_config(args["config"], overrides)
        trainer = Trainer(config, args["out"], accelerator=Accelerator(cpu=args["cpu"], mixed_precision="no"))
    except (ValidationError, tomllib.TOMLDecodeError, ModelError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    trainer.train()
    trainer.accelerator.end_training()
    return 0


if __name__ == "__main__":
    sys.exit(main())
