"""Configuration of the whole service, read once from `SITSEARCH_*` environment variables (and a `.env` file)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every knob of gateway and workers. Durations are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="SITSEARCH_", env_file=".env", extra="ignore", frozen=True)

    # Storage
    redis_url: str | None = Field(None, description="Redis or Valkey address; none starts an embedded Valkey")
    data_dir: Path = Field(Path("data"), description="folder of the embedded Valkey's append-only file and of logs")
    key_prefix: str = Field("sitsearch", description="first part of every Redis key")
    job_ttl: float = Field(7 * 86_400, gt=0, description="how long a finished job is kept")
    image_ttl: float = Field(86_400, gt=0, description="how long images are kept after their last change")

    thumbnails: int = Field(
        24, ge=0, le=256, description="candidates of a round that the studio shows, with small pictures; 0 shows none"
    )

    # Gateway
    host: str = Field("127.0.0.1", description="address the gateway listens on")
    port: int = Field(8000, ge=0, le=65_535, description="port the gateway listens on")
    max_body: int = Field(64 * 1024, ge=1024, description="largest request body")
    max_queued: int = Field(10_000, ge=1, description="jobs waiting before POST /generate answers 429")
    max_queued_nfe: int = Field(
        100_000_000, ge=1, description="NFE that waiting jobs may spend together before POST /generate answers 429"
    )
    max_watchers: int = Field(
        2000, ge=1, description="event streams and long polls of one gateway, beyond which it answers 503"
    )
    max_log_mb: int = Field(100, ge=1, description="largest round log that a job may come to, in MB")
    max_nfe: int = Field(1_000_000, ge=1, description="largest budget of one job, in NFE")

    # Workers
    models: tuple[str, ...] = Field(("glyphs",), description="model cards served by this deployment")
    verifiers: tuple[str, ...] = Field(
        ("classifier", "clip_score", "auditor"), description="verifier cards served by this deployment"
    )
    auditors: tuple[str, ...] = Field(
        ("auditor",),
        description="verifiers that audit guided searches which name no auditors, those of them that are served",
    )
    verifier_pools: Path | None = Field(
        None, description="TOML file with a table for each verifier: `replicas`, `batch`, `gpus`, `cpus`"
    )
    sampler_replicas: int | None = Field(
        None,
        ge=1,
        description="sampler replicas a model; none is 1, but on one machine without a GPU one a core, up to 4",
    )
    sampler_max_replicas: int | None = Field(
        None,
        ge=1,
        description="sampler replicas a model that queued work may bring the pool to; none keeps it as it is",
    )
    sampler_queue: float = Field(10, gt=0, description="seconds of queued work a sampler replica before the pool grows")
    sampler_spread: int = Field(
        8, ge=1, description="sampler replicas that share a round of a job, at most; each is a call of its own"
    )
    sampler_threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads of a sampler replica; none is all, shared out over the replicas of one machine",
    )
    sampler_gpus: float = Field(0, ge=0, description="GPUs of one sampler replica")
    verifier_replicas: int = Field(1, ge=1, description="replicas a verifier")
    verifier_gpus: float = Field(0, ge=0, description="GPUs of one verifier replica")
    coordinators: int = Field(1, ge=1, description="coordinator replicas")
    jobs_per_coordinator: int = Field(16, ge=1, description="jobs one coordinator runs at once")
    batch: int = Field(32, ge=2, description="network rows of one forward, at most")
    latent_mb: int = Field(1024, ge=0, description="memory of one sampler replica for states midway, in MiB")
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="precision of the network's weights; auto is bfloat16 where the device computes in it"
    )
    compile: bool = Field(False, description="compile the network with torch.compile at start")
    deterministic: bool = Field(True, description="pad forwards so that a result never depends on what else is sampled")
    lease: float = Field(15, gt=0, description="how long a silent coordinator keeps a job before another takes it")
    verifier_patience: float = Field(
        600, ge=0, description="how long a job waits for a verifier whose own source does not answer before it fails"
    )
    offer_ttl: float = Field(15, gt=0, description="how long what the workers offer is believed without renewal")

    @property
    def least_samplers(self) -> int:
        """Sampler replicas a model, at least."""
        return self.sampler_replicas or 1

    @property
    def most_samplers(self) -> int:
        """Sampler replicas a model, at most."""
        return max(self.least_samplers, self.sampler_max_replicas or 0)

    @property
    def slots(self) -> int:
        """Sampler replicas that share a round of a job, at most; see `sitsearch.workers.serving.affinity`."""
        return min(self.most_samplers, self.sampler_spread)


@lru_cache
def settings() -> Settings:
    """The process's settings, read on first use."""
    return Settings()
