"""One MLflow run, written so that doing a thing twice is doing it once. Only MlflowClient, always with the run's id."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from service import surroundings
from trainer.specs.given_files import read_bytes

POINTS = 1000
"""The most points that one request may hold."""
PARAMS = 100
SMALL_CALL_SECONDS = 10
"""So long MLflow may keep silent at a call that carries no large file."""
UPLOAD_BYTES_PER_SECOND = 2**20
"""The slowest server that is waited for: it stores an upload after it has received all of it, in silence."""
LONGEST_TAG = 5000
THUMBNAIL = 256
MAX_PICTURE_BYTES = 1 << 26

_IMAGE = re.compile(r"^images/(?P<key>[^+]+)\+step\+(?P<step>\d+)\+.*(?P<end>\.png|\+compressed\.webp)$")

log = logging.getLogger(__name__)

Point = tuple[str, int, float, datetime]
"""A point of a metric: key, step, value, time."""


def make_client(url: str, token: str | None = None) -> Any:
    """An MlflowClient that gives up on a dead server within seconds, where its default waits for four minutes.

    It tries every call once: the recorder tries again, after the other jobs had their turn. Its token it reads from the
    environment, and offers no other way. MLflow is imported here, after its settings: a worker without MLflow does not
    carry it.
    """
    surroundings.ask_nobody_else()
    os.environ.update(
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
        MLFLOW_HTTP_REQUEST_TIMEOUT=str(SMALL_CALL_SECONDS),
        MLFLOW_DISABLE_TELEMETRY="true",
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
        GIT_PYTHON_REFRESH="quiet",
    )
    if token is not None:
        # Not as a token alone: what ~/.mlflow/credentials of the account says would be sent in its place.
        os.environ.update(MLFLOW_TRACKING_USERNAME="barlow", MLFLOW_TRACKING_PASSWORD=token)
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
    """One run by its id, in the experiment with this id, known by its tag."""

    def __init__(self, client: Any, run_id: str, experiment: str, tag: tuple[str, str]) -> None:
        self._client = client
        self.id = run_id
        self._experiment = experiment
        self._tag = tag

    @classmethod
    def find_or_create(
        cls, client: Any, experiment: str, *, tag: tuple[str, str], known: str | None, name: str, started_at: datetime
    ) -> MlflowRun:
        """The only run that carries `tag`; a new one if there is none.

        Of several, which a lost answer or two exporters at once leave, one stays: the `known` one, else the first by
        id, so that all who look agree.
        """
        key, value = tag
        if not _runs_with(client, experiment, tag):
            client.create_run(
                experiment,
                start_time=milliseconds(started_at),
                tags={key: value, "mlflow.loggedImages": "true"},
                run_name=name,
            )
        found = _runs_with(client, experiment, tag)
        assert found, "MLflow finds a run that it has just made"
        run = cls(client, known if known in found else found[0], experiment, tag)
        run.delete_others(found)
        return run

    @staticmethod
    def delete_all(client: Any, experiment: str, tag: tuple[str, str]) -> None:
        """Delete every run that carries `tag`; MLflow keeps deleted runs until its garbage is collected."""
        for run_id in _runs_with(client, experiment, tag):
            client.delete_run(run_id)

    def delete_others(self, found: Sequence[str] | None = None) -> None:
        """Delete whatever else carries the tag; `found`: the runs that carry it, if they were just asked for."""
        for run_id in _runs_with(self._client, self._experiment, self._tag) if found is None else found:
            if run_id != self.id:
                self._client.delete_run(run_id)

    def params(self, values: dict[str, str]) -> None:
        """Log params; they can never change afterwards, the same value again is fine."""
        from mlflow.entities import Param

        params = [Param(key, value) for key, value in values.items()]
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

    def images(self, images: Iterable[tuple[str, int, datetime, Path]]) -> Iterator[None]:
        """Log pictures (key, step, time, PNG file) that are not there yet; yields after each that was sent.

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
            yield

    def artifact(self, path: Path, folder: str) -> None:
        """Upload a file to `folder` of the run, unless one of its name and size is there.

        A slow server may store what it received after the wait for its answer was given up: it is not sent again.
        """
        size = path.stat().st_size
        there = {artifact.path: artifact.file_size for artifact in self._client.list_artifacts(self.id, folder)}
        if there.get(f"{folder}/{path.name}") != size:
            with _patience(size):
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


def _runs_with(client: Any, experiment: str, tag: tuple[str, str]) -> list[str]:
    """Ids of the runs that carry the tag, sorted; deleted ones do not count."""
    key, value = tag
    return sorted(run.info.run_id for run in client.search_runs([experiment], f"tags.`{key}` = '{value}'"))


@contextlib.contextmanager
def _patience(size: int) -> Iterator[None]:
    """Let MLflow's client wait long enough for an upload of `size` bytes.

    It reads its timeout from the environment at every call and offers no other way. Only one thread of a process
    uploads; the small calls of the other wait longer meanwhile if MLflow stops answering, when nothing can be sent.
    """
    seconds = SMALL_CALL_SECONDS + size // UPLOAD_BYTES_PER_SECOND
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(seconds)
    try:
        yield
    finally:
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(SMALL_CALL_SECONDS)


def _read_picture(path: Path) -> Image.Image | None:
    try:
        raw = read_bytes(path, most=MAX_PICTURE_BYTES)
        with Image.open(BytesIO(raw), formats=("PNG",)) as image:
            image.load()
            return image
    # The second is Pillow's word for a broken PNG, the others for one that would take too much memory.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        log.warning("a picture cannot be read and is left out: %s", error)
        return None


def milliseconds(at: datetime) -> int:
    """Milliseconds since the epoch, as MLflow counts time."""
    return round(at.timestamp() * 1000)
