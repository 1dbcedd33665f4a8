"""One MLflow run, written so that doing a thing twice is doing it once. Only MlflowClient, always with the run's id."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

POINTS = 1000
"""The most points that one request may hold."""
PARAMS = 100
LONGEST_PARAM = 6000
LONGEST_TAG = 5000
THUMBNAIL = 256

_IMAGE = re.compile(r"^images/(?P<key>[^+]+)\+step\+(?P<step>\d+)\+.*(?P<end>\.png|\+compressed\.webp)$")

log = logging.getLogger(__name__)

Point = tuple[str, int, float, datetime]
"""A point of a metric: key, step, value, time."""


def make_client(url: str) -> Any:
    """An MlflowClient that gives up on a dead server within seconds, where its default waits for four minutes.

    MLflow is imported here, after its settings: a worker without MLflow does not carry it.
    """
    os.environ.update(
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="2",
        MLFLOW_HTTP_REQUEST_TIMEOUT="10",
        MLFLOW_DISABLE_TELEMETRY="true",
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
        GIT_PYTHON_REFRESH="quiet",
    )
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=url)


def experiment_id(client: Any, name: str) -> str:
    """The id of the MLflow experiment of this name, made if need be and brought back if it was deleted."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # another worker was faster, or it is a real failure and this raises it
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


class MlflowRun:
    """One run by its id."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client = client
        self.id = run_id

    @classmethod
    def find_or_create(
        cls, client: Any, experiment: str, *, tag: tuple[str, str], name: str, started_at: datetime
    ) -> MlflowRun:
        """The run that carries `tag` in the experiment with this id; a new one if there is none."""
        key, value = tag
        found = client.search_runs([experiment], filter_string=f"tags.`{key}` = '{value}'", max_results=1)
        if found:
            return cls(client, found[0].info.run_id)
        made = client.create_run(
            experiment,
            start_time=milliseconds(started_at),
            tags={key: value, "mlflow.loggedImages": "true"},
            run_name=name,
        )
        return cls(client, made.info.run_id)

    def params(self, values: dict[str, str]) -> None:
        """Log params; they can never change afterwards, the same value again is fine."""
        from mlflow.entities import Param

        params = [Param(key, value[:LONGEST_PARAM]) for key, value in values.items()]
        for start in range(0, len(params), PARAMS):
            self._client.log_batch(self.id, params=params[start : start + PARAMS])

    def tags(self, values: dict[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        if values:
            self._client.log_batch(self.id, tags=[RunTag(key, value[:LONGEST_TAG]) for key, value in values.items()])

    def points(self, points: Sequence[Point]) -> None:
        """Log at most 1,000 points. MLflow keeps one of a point that is sent again with the same time and value."""
        from mlflow.entities import Metric

        metrics = [Metric(key, value, milliseconds(at), step) for key, step, value, at in points]
        self._client.log_batch(self.id, metrics=metrics)

    def images(self, images: Iterable[tuple[str, int, datetime, Path]]) -> None:
        """Log pictures (key, step, time, PNG file) that are not there yet.

        MLflow gives every picture a new name, so what is there is asked for first; a kill between the two files of
        one picture leaves the first, whose thumbnail is then added. A file that is gone or damaged is passed over.
        """
        there: dict[tuple[str, int], dict[str, str]] = {}
        for artifact in self._client.list_artifacts(self.id, "images"):
            if match := _IMAGE.match(artifact.path):
                there.setdefault((match["key"], int(match["step"])), {})[match["end"]] = artifact.path
        for key, step, at, path in images:
            found = there.get((key.replace("/", "~"), step), {})
            if len(found) == 2 or (image := _read_picture(path)) is None:
                continue
            if ".png" not in found:
                self._client.log_image(self.id, image, key=key, step=step, timestamp=milliseconds(at))
            else:
                self._thumbnail(image, found[".png"].removesuffix(".png") + "+compressed.webp")

    def artifact(self, path: Path, folder: str) -> None:
        """Upload a file to `folder` of the run; one of the same name is replaced."""
        self._client.log_artifact(self.id, str(path), folder)

    def text(self, text: str, name: str) -> None:
        """Write a text artifact; one of the same name is replaced."""
        self._client.log_text(self.id, text, name)

    def finish(self, status: str, at: datetime) -> None:
        """Set the final status: FINISHED, FAILED or KILLED."""
        self._client.set_terminated(self.id, status, milliseconds(at))

    def _thumbnail(self, image: Image.Image, name: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            image.thumbnail((THUMBNAIL, THUMBNAIL))
            file = Path(folder) / Path(name).name
            image.save(file)
            self._client.log_artifact(self.id, str(file), "images")


def _read_picture(path: Path) -> Image.Image | None:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, SyntaxError) as error:  # the second is Pillow's word for a broken PNG
        log.warning("a picture cannot be read and is left out: %s", error)
        return None


def milliseconds(at: datetime) -> int:
    """Milliseconds since the epoch, as MLflow counts time."""
    return round(at.timestamp() * 1000)
