"""Every setting of the service and the worker, in one place. Each is an environment variable BARLOW_<NAME>, or the
content of a file barlow_<name> in /run/secrets, where containers find what is not to stand in an environment."""

from __future__ import annotations

import ipaddress
import re
import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from service.addresses import check_address, refuse_secret, shown_part
from service.web.origins import origin_of, read_hosts, read_origins

SECRETS_DIR = Path("/run/secrets")
"""Where container engines mount secrets as files. Left out where it does not exist."""

SHORTEST_TOKEN = 32
MAKE_TOKEN = "python3 -c \"import secrets; print('barlow_' + secrets.token_urlsafe(32))\""
"""The command that makes a good token."""


POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")
"""How the address of a database begins."""
_SCHEMES = {
    "database_url": POSTGRES,
    "owner_database_url": POSTGRES,
    "superuser_database_url": POSTGRES,
    "mlflow_database_url": POSTGRES,
    "redis_url": ("redis", "rediss", "redis+socket", "unix", "sentinel"),
    "mlflow_url": ("http", "https"),
}


class FromEnvironment(BaseSettings):
    """Where settings come from. An environment variable wins over a file of the same name."""

    # An error that showed what it was given would put a password or a token into a log.
    model_config = SettingsConfigDict(env_prefix="BARLOW_", extra="ignore", frozen=True, hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is said in code, then the environment, then files of secrets, if there are any."""
        files = [SecretsSettingsSource(settings_cls, SECRETS_DIR)] if SECRETS_DIR.is_dir() else []
        return init_settings, env_settings, *files


def long_token(name: str, token: SecretStr | None) -> SecretStr | None:
    """A token that nobody guesses. An empty one is refused, too: whoever sets the variable does not mean an open door.

    Raises:
        ValueError: it is too short, or holds what no header does; tells the variable `name`.
    """
    if token is not None and not re.fullmatch(rf"[\x21-\x7e]{{{SHORTEST_TOKEN},}}", token.get_secret_value()):
        raise ValueError(
            f"{name} must be {SHORTEST_TOKEN} visible ASCII characters or more, without blanks; "
            f"make one with: {MAKE_TOKEN}"
        )
    return token


class Settings(FromEnvironment):
    """Settings of API, scheduler and worker; a process reads what it needs. Times are in seconds."""

    database_url: SecretStr = Field(description="Run database: postgresql://user:password@host/name")
    owner_database_url: SecretStr | None = Field(
        None,
        description="The run database by the role that owns its tables, for migrations; none: that of database_url",
    )
    superuser_database_url: SecretStr | None = Field(
        None, description="A superuser of that server, for `python -m service.database provision` and nothing else"
    )
    mlflow_database_url: SecretStr | None = Field(None, description="MLflow's own database, by the role that owns it")
    redis_url: SecretStr = Field(SecretStr("redis://127.0.0.1:6379/0"), description="Celery broker")
    mlflow_url: str | None = Field(None, description="MLflow tracking server as the worker reaches it; none: no MLflow")
    mlflow_public_url: str | None = Field(None, description="MLflow as a browser reaches it, for links")
    mlflow_token: SecretStr | None = Field(
        None, description="The recorder's credential at MLflow, the same for the worker and for MLflow's server"
    )
    same_account: bool = Field(
        False,
        description="Redis and MLflow on this machine are this account's, as under `barlow up`: no other one that "
        "listens there gets a secret",
    )
    runs_dir: Path = Field(Path("runs"), description="Run directories of all jobs; shared by API and workers")

    api_host: str = Field(
        "127.0.0.1", description="Address that the API listens on; another than loopback asks for an admin_token"
    )
    api_port: int = Field(8000, ge=0, le=65535, description="Its TCP port; 0: a free one")
    api_port_shared: bool = Field(
        False, description="Another process of this account keeps the port and shares it, as `barlow up` does"
    )
    admin_token: SecretStr | None = Field(
        None, description="The bootstrap admin token; none: nobody needs a token, and only loopback is listened on"
    )
    allowed_hosts: str = Field(
        "", description="Names that the API is asked by, separated by commas, beside localhost and its addresses"
    )
    public_url: str | None = Field(
        None, description="The API as browsers reach it, where a proxy stands in front: https://lab.example.org"
    )
    cors_origins: str = Field(
        "", description="Origins whose pages may ask the API, separated by commas; none: only pages of its own"
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses and networks, separated by commas, whose X-Forwarded-For and -Proto are believed",
    )
    submitters_change_all: bool = Field(
        False, description="Submitters cancel, pause, resume and retry the jobs of all users, not only their own"
    )
    max_body_bytes: int = Field(1_000_000, ge=1000, description="Largest request body")
    max_experiment_jobs: int = Field(500, ge=1, description="Jobs that one experiment is submitted with, in one body")
    max_open_jobs: int = Field(1000, ge=1, description="Jobs of one user that wait, run or are paused; admins: any")
    max_submitter_priority: int = Field(
        10, ge=0, le=100, description="Highest run.priority that a submitter may ask for; admins: up to 100"
    )
    max_streams: int = Field(1000, ge=1, description="Streams of events and logs at once, of all callers")
    max_streams_per_token: int = Field(100, ge=1, description="Streams of events and logs at once, of one token")

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

    cache_dir: Path | None = Field(
        None, description="Where ranks keep what torch compiles; left out: ~/.cache/barlow-lab, closed to others"
    )
    rank_environment: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Environment variables that ranks get besides those for computing: NAME,NAME"
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

    @field_validator("admin_token", "mlflow_token")
    @classmethod
    def _a_token_is_long(cls, token: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        return long_token(f"BARLOW_{str(info.field_name).upper()}", token)

    @field_validator(*_SCHEMES)
    @classmethod
    def _an_address_is_read_one_way(cls, url: SecretStr | str | None, info: ValidationInfo) -> SecretStr | str | None:
        if url is not None:
            text = url.get_secret_value() if isinstance(url, SecretStr) else url
            check_address(text, _SCHEMES[info.field_name or ""])
        return url

    @field_validator("public_url", "mlflow_public_url")
    @classmethod
    def _an_address_for_people_holds_no_secret(cls, url: str | None) -> str | None:
        if url is not None:
            refuse_secret(url)
        return url

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts_are_names(cls, text: str) -> str:
        read_hosts(text, "BARLOW_ALLOWED_HOSTS")
        return text

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_whole(cls, text: str) -> str:
        read_origins(text, "BARLOW_CORS_ORIGINS")
        return text

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_addresses(cls, text: str) -> str:
        read_networks(text)
        return text

    @field_validator("public_url")
    @classmethod
    def _a_url_has_an_origin(cls, url: str | None) -> str | None:
        if url and origin_of(url) is None:
            raise ValueError(f"BARLOW_PUBLIC_URL is an address like https://lab.example.org; {url!a} is none")
        return url or None

    @field_validator("rank_environment", mode="before")
    @classmethod
    def _names_of_variables(cls, given: object) -> object:
        names = tuple(part for part in re.split(r"[,\s]+", given) if part) if isinstance(given, str) else given
        for name in names if isinstance(names, tuple) else ():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name.startswith("BARLOW_"):
                raise ValueError(
                    f"{name!r} cannot be passed on to ranks: name environment variables, separated by commas, and none "
                    "of this service's own (BARLOW_...), which hold its passwords"
                )
        return names

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

    def as_owner(self) -> Settings:
        """These settings with the role that owns the tables as the one that connects."""
        return self.model_copy(update={"database_url": self.owner_database_url or self.database_url})

    @property
    def sqlalchemy_url(self) -> str:
        """The run database for SQLAlchemy with psycopg 3, whatever dialect the URL was written with."""
        url = self.database_url.get_secret_value()
        return "postgresql+psycopg://" + url.split("://", 1)[1]


def read_networks(text: str) -> list[str]:
    """The addresses and networks in a setting, which separates them by commas.

    Raises:
        ValueError: something in it is neither.
    """
    said = [part.strip() for part in text.split(",") if part.strip()]
    for part in said:
        try:
            ipaddress.ip_network(part)
        except ValueError:
            raise ValueError(
                "BARLOW_TRUSTED_PROXIES lists addresses and networks, like 127.0.0.1,172.16.0.0/12: "
                f"{shown_part(part, text)} is none; a network has no bits set behind its prefix"
            ) from None
    return said


def read_settings() -> Settings:
    """The settings of this process; ends it with status 2 where they are none, after a line for each fault."""
    try:
        return Settings()
    except ValidationError as error:
        print(in_words(error), file=sys.stderr)
        raise SystemExit(2) from None


def in_words(error: ValidationError) -> str:
    """The faults of settings, a line for each, that begins with the variable. What they were given is not shown."""
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        name = "_".join(["BARLOW", *(str(part).upper() for part in item["loc"])])
        said = item["msg"].removeprefix("Value error, ")
        lines.append(said if said.startswith(name) else f"{name}: {said}")
    return "\n".join(lines)
