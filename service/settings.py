"""Every setting of the service and the worker, in one place. Each is an environment variable BARLOW_<NAME>."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of API, scheduler and worker; a process reads what it needs. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="BARLOW_", extra="ignore", frozen=True)

    database_url: SecretStr = Field(description="Run database: postgresql://user:password@host/name")
    redis_url: SecretStr = Field(SecretStr("redis://127.0.0.1:6379/0"), description="Celery broker")
    mlflow_url: str | None = Field(None, description="MLflow tracking server as the worker reaches it; none: no MLflow")
    mlflow_public_url: str | None = Field(None, description="MLflow as a browser reaches it, for links")
    runs_dir: Path = Field(Path("runs"), description="Run directories of all jobs; shared by API and workers")

    api_host: str = "127.0.0.1"
    api_port: int = Field(8000, ge=0, le=65535)
    max_body_bytes: int = Field(1_000_000, ge=1000, description="Largest request body")

    recipes_dir: Path | None = Field(
        None, description="Spec files that `barlow recipes` lists; left out: those of the installation"
    )

    node_name: str | None = Field(None, description="Name of this GPU host; two live workers cannot share one")
    slots: int | None = Field(None, ge=1, description="CPU slots of a host without GPUs; left out: one per two cores")
    data_dir: Path | None = Field(None, description="Root of the data sets on this host")
    datasets_file: Path | None = Field(
        None, description="Which data sets this host has, and where; left out: datasets.yaml in data_dir, if there"
    )
    backbones_dir: Path | None = Field(
        None, description="Folder of weights on this host that evaluations name: files of others, torchvision's, ours"
    )

    tick_seconds: float = Field(2.0, gt=0, description="The scheduler looks at least this often")
    reserve_after_seconds: float = Field(
        300.0, ge=0, description="A job of several slots that has waited so long gets a node kept for it"
    )
    poll_seconds: float = Field(15.0, gt=0, description="The worker asks for placed attempts at least this often")
    heartbeat_seconds: float = Field(10.0, gt=0, description="Between two lease renewals")
    lease_seconds: float = Field(60.0, gt=0, description="An attempt not renewed for this long is lost")
    stop_grace_seconds: float = Field(30.0, gt=0, description="From a stop request to TERM, and from TERM to KILL")
    retry_backoff_seconds: float = Field(5.0, ge=0, description="Wait before retry 1; doubled for each further one")
    recorder_seconds: float = Field(1.0, gt=0, description="Between two looks of the recorder at the journals")
    disk_reserve_bytes: int = Field(
        2_000_000_000, ge=0, description="Less free below runs_dir: jobs are warned, and old checkpoints give way"
    )

    @model_validator(mode="after")
    def _the_lease_has_room(self) -> Settings:
        late = {
            "heartbeat": (self.heartbeat_seconds, "one late renewal loses the job"),
            "poll": (self.poll_seconds, "without Redis, a placed job is taken back before its node has asked for it"),
        }
        for name, (seconds, otherwise) in late.items():
            if seconds * 2 > self.lease_seconds:
                raise ValueError(
                    f"BARLOW_{name.upper()}_SECONDS {seconds:g} must be at most half of "
                    f"BARLOW_LEASE_SECONDS {self.lease_seconds:g}, or {otherwise}"
                )
        return self

    @property
    def sqlalchemy_url(self) -> str:
        """The run database for SQLAlchemy with psycopg 3, whatever dialect the URL was written with."""
        url = self.database_url.get_secret_value()
        return "postgresql+psycopg://" + url.split("://", 1)[1]
