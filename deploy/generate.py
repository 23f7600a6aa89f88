"""Generate the Serve part of the RayService manifests from the settings.

`python -m deploy.generate` writes the patches listed in `TARGETS`; `--check` writes nothing and exits with 1 when a
patch differs from what the settings say, so that a changed default or a changed Ray version cannot pass unseen.

The worker settings travel as arguments of the Serve application, not as environment of the Ray pods: KubeRay applies a
changed `serveConfigV2` to the running cluster, whereas a changed pod template makes it start a second cluster.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from sitsearch.workers.settings import Settings

ROOT = Path(__file__).parent
PREFIX = "SITSEARCH_"

TARGETS: Mapping[Path, tuple[Path, ...]] = {
    ROOT / "base/serve-config.yaml": (ROOT / "base/settings/workers.env",),
    ROOT / "overlays/gpu/serve-config.yaml": (ROOT / "base/settings/workers.env", ROOT / "overlays/gpu/workers.env"),
}
"""Each generated patch and the files that override the settings' defaults for it, the last one first in rank."""

WORKER_FIELDS = (
    "models",
    "verifiers",
    "auditors",
    "sampler_replicas",
    "sampler_max_replicas",
    "sampler_queue",
    "sampler_spread",
    "sampler_threads",
    "sampler_gpus",
    "verifier_replicas",
    "verifier_gpus",
    "coordinators",
    "jobs_per_coordinator",
    "batch",
    "dtype",
    "compile",
    "deterministic",
)
"""The fields of `Settings` that shape the workers and that nothing else reads."""

COORDINATOR_CPUS = 0.5
SAMPLER_CPUS = 2
VERIFIER_CPUS = 0.5
"""CPUs that Ray reserves for one replica; Ray also sets its OMP_NUM_THREADS to them."""

HEADER = "# Generated from the settings by `python -m deploy.generate`; change workers.env instead.\n"


class _FileSettings(Settings):
    """The settings as files say them: this machine's environment and `.env` must not leak into a manifest."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (dotenv_settings,)


def load(files: Iterable[Path]) -> Settings:
    """The settings with the defaults overridden by `files`, later files first in rank.

    Raises:
        ValueError: a line sets a name that no setting has (`Settings` itself ignores such names), or a bad value.
    """
    files = tuple(files)
    for file in files:
        known = {PREFIX + name.upper() for name in Settings.model_fields}
        if unknown := sorted(set(dotenv_values(file)) - known):
            raise ValueError(f"{file}: no such settings: {', '.join(unknown)}")
    return _FileSettings(_env_file=files)


def serve_config(settings: Settings) -> dict[str, Any]:
    """The Serve config (`ray.serve.schema.ServeDeploySchema`) that runs the workers as `settings` say.

    No HTTP proxy runs: the workers take jobs from Redis and call each other through deployment handles.
    """
    scales = settings.most_samplers > settings.least_samplers  # as the application says; a number here would end that
    fixed = None if scales else settings.least_samplers
    deployments = [_deployment("Coordinator", settings.coordinators, COORDINATOR_CPUS, 0)]
    deployments += [
        _deployment(f"Sampler-{model}", fixed, SAMPLER_CPUS, settings.sampler_gpus) for model in settings.models
    ]
    deployments += [
        _deployment(f"Verifier-{name}", settings.verifier_replicas, VERIFIER_CPUS, settings.verifier_gpus)
        for name in settings.verifiers
    ]
    return {
        "proxy_location": "Disabled",
        "applications": [
            {
                "name": "sitsearch",
                "route_prefix": None,
                "import_path": "sitsearch.workers.serving.app:build",
                "args": settings.model_dump(mode="json", include=set(WORKER_FIELDS)),
                "deployments": deployments,
            }
        ],
    }


def _deployment(name: str, replicas: int | None, cpus: float, gpus: float) -> dict[str, Any]:
    size = {} if replicas is None else {"num_replicas": replicas}
    return {"name": name, **size, "ray_actor_options": {"num_cpus": cpus, "num_gpus": gpus}}


def patch(settings: Settings) -> str:
    """The merge patch, as YAML text, that gives the RayService its Serve config and the installed Ray's version."""
    manifest = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "sitsearch"},
        "spec": {
            "serveConfigV2": yaml.safe_dump(serve_config(settings), sort_keys=False),
            "rayClusterConfig": {"rayVersion": version("ray")},
        },
    }
    return HEADER + yaml.dump(manifest, Dumper=_Dumper, sort_keys=False)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, so that the inner document stays readable."""


def _block(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _block)


def main(argv: list[str] | None = None) -> int:
    """Write or check every patch; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.generate", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a patch is stale")
    check = parser.parse_args(argv).check

    stale = {path: text for path, files in TARGETS.items() if _read(path) != (text := patch(load(files)))}
    for path, text in stale.items():
        if check:
            print(f"{path.relative_to(ROOT.parent)} is stale: run `python -m deploy.generate`", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT.parent)}")
    return int(check and bool(stale))


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
