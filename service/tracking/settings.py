"""What the server of MLflow is told, BARLOW_MLFLOW_<NAME> in the environment. Nothing of the run database is in it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from service.addresses import check_address, refuse_secret
from service.settings import POSTGRES, FromEnvironment, long_token
from service.web.origins import TrustedNames, read_hosts

HOSTS = "BARLOW_MLFLOW_HOSTS"


class TrackingSettings(FromEnvironment):
    """Settings of `python -m service.tracking`."""

    mlflow_database_url: SecretStr = Field(description="MLflow's own database: postgresql://user:password@host/name")
    mlflow_artifacts_dir: Path = Field(description="Where the files of the runs lie")
    mlflow_home: Path = Field(
        Path(tempfile.gettempdir()) / "barlow-mlflow", description="The home of the process, where nothing of yours is"
    )
    mlflow_host: str = Field("127.0.0.1", description="Address that MLflow listens on")
    mlflow_port: int = Field(5000, ge=0, le=65535, description="Its TCP port; 0: a free one")
    mlflow_port_shared: bool = Field(
        False, description="Another process of this account keeps the port and shares it, as `barlow up` does"
    )
    mlflow_workers: int = Field(1, ge=1, le=64, description="Processes that answer")
    mlflow_hosts: str = Field("", description="Names, by commas, that browsers use for MLflow, beside loopback's")
    mlflow_public_url: str | None = Field(None, description="MLflow as a browser reaches it")
    mlflow_token: SecretStr = Field(description="The recorder's credential, as the worker has it")
    api_url: str = Field("http://127.0.0.1:8000", description="The API, which knows everybody else's tokens")
    same_account: bool = Field(
        False,
        description="The API on this machine is this account's, as under `barlow up`: no other one that listens there "
        "gets a token",
    )

    @field_validator("mlflow_database_url")
    @classmethod
    def _an_address_is_read_one_way(cls, url: SecretStr) -> SecretStr:
        check_address(url.get_secret_value(), POSTGRES)
        return url

    @field_validator("api_url", "mlflow_public_url")
    @classmethod
    def _an_address_for_people_holds_no_secret(cls, url: str | None) -> str | None:
        if url is not None:
            refuse_secret(url)
        return url

    @field_validator("mlflow_token")
    @classmethod
    def _a_token_is_long(cls, token: SecretStr, info: ValidationInfo) -> SecretStr | None:
        return long_token(f"BARLOW_{str(info.field_name).upper()}", token)

    @field_validator("mlflow_hosts")
    @classmethod
    def _hosts_are_names(cls, hosts: str) -> str:
        read_hosts(hosts, HOSTS)
        return hosts

    @property
    def names(self) -> TrustedNames:
        """The names it answers to, and the pages that may write."""
        urls = [self.mlflow_public_url]
        return TrustedNames.of(HOSTS, "BARLOW_MLFLOW_PUBLIC_URL", hosts=read_hosts(self.mlflow_hosts, HOSTS), urls=urls)
