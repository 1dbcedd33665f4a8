"""One MLflow run, written so that doing a thing twice is doing it once. Only MlflowClient, always with the run's id."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from PIL import Image

from barlow_lab.given_files import read_bytes
from service import shell_environment
from service.addresses import without_user
from service.loopback import require_connected_to_ours
from service.mlflow_layout import LAYOUT_TAG
from service.recording import JOB_TAG
from worker.recorder.mlflow_experiment import every_experiment

POINTS = 1000
"""The most points that one request may hold."""
PARAMS = 100
SMALL_CALL_SECONDS = 10
"""So long MLflow may keep silent at a call that carries no large file."""
UPLOAD_BYTES_PER_SECOND = 2**20
"""The slowest server that is waited for: it stores an upload after it has received all of it, in silence."""
LONGEST_TAG = 5000
DIGEST = 12
"""Characters of a fingerprint that MLflow shows beside the name of a data set."""
THUMBNAIL = 512
"""Pixels; pages show it as wide as a tile is, and no wider than it is: a smaller one stands in the middle of a wide
tile, most of it below the edge."""
MAX_PICTURE_BYTES = 1 << 26

_IMAGE = re.compile(r"^images/(?P<key>[^+]+)\+step\+(?P<step>\d+)\+.*(?P<end>\.png|\+compressed\.webp)$")

_NOTE = "mlflow.note.content"
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_UPLOADS: list[int] = []
"""How long each upload that is under way is waited for."""
_UPLOADS_LOCK = threading.Lock()

log = logging.getLogger(__name__)

Point = tuple[str, int, float, datetime]
"""A point of a metric: key, step, value, time."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """One split of a data set: in which format (`form`) it is read, and the `role` it has (train, test)."""

    name: str
    fingerprint: str
    form: str
    images: int
    role: str


def make_client(url: str, token: str | None = None, *, same_account: bool = False) -> Any:
    """An MlflowClient that gives up on a dead server within seconds, where its default waits for four minutes.

    It tries every call once: the recorder tries again, after the other jobs had their turn. Its token it reads from the
    environment, and offers no other way. MLflow is imported here, after its settings: a worker without MLflow does not
    carry it. With `same_account` a server on this machine is sent nothing unless it is this account's.
    """
    shell_environment.ask_nobody_else()
    os.environ.update(
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
        MLFLOW_HTTP_REQUEST_TIMEOUT=str(SMALL_CALL_SECONDS),
        MLFLOW_DISABLE_TELEMETRY="true",
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
        GIT_PYTHON_REFRESH="quiet",
    )
    url, user, password = without_user(url)  # MLflow's errors show it
    if password is not None:
        os.environ.update(MLFLOW_TRACKING_USERNAME=user or "", MLFLOW_TRACKING_PASSWORD=password)
    elif token is not None:
        # Not as a token alone: what ~/.mlflow/credentials of the account says would be sent in its place.
        os.environ.update(MLFLOW_TRACKING_USERNAME="barlow", MLFLOW_TRACKING_PASSWORD=token)
    from mlflow import MlflowClient

    if same_account:
        _look_at_connections()
    return MlflowClient(tracking_uri=url)


def _look_at_connections() -> None:
    """Ask whose the server is of each connection that this process makes over http from now on, before it sends.

    Of all of them, since MLflow's client shows nobody its own; there are no others (shell_environment.ask_nobody_else).
    """
    from urllib3.connection import HTTPConnection
    from urllib3.connectionpool import HTTPConnectionPool

    class OurConnection(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            try:
                require_connected_to_ours(self.sock)
            except ConnectionError:
                self.close()
                raise

    HTTPConnectionPool.ConnectionCls = OurConnection


class MlflowRun:
    """One run by its id, in the experiment with this id, known by its tag."""

    def __init__(self, client: Any, run_id: str, experiment: str, tag: tuple[str, str], *, former: bool) -> None:
        self._client = client
        self.id = run_id
        self.former = former
        """A former version began it, by another layout (service.mlflow_layout), in which it is continued."""
        self.experiment = experiment
        self._tag = tag

    @classmethod
    def find_or_create(
        cls,
        client: Any,
        experiment: str,
        *,
        tag: tuple[str, str],
        known: str | None,
        name: str,
        started_at: datetime,
        anew: bool = False,
    ) -> MlflowRun:
        """The only run that carries `tag`, in whatever experiment it is; a new one in `experiment` if there is none.

        Of several, which a lost answer or two exporters at once leave, one stays: the `known` one, else one in
        `experiment`, else the first by id, so that all who look agree. Those in other experiments than that of the one
        that stays are left until the run is made `anew`, which deletes all that there are; MLflow keeps deleted runs
        until its garbage is collected.
        """
        found = _runs_with(client, [there.experiment_id for there in every_experiment(client)], tag)
        if anew:
            for run_id in found:
                client.delete_run(run_id)
        if anew or not found:
            client.create_run(
                experiment,
                start_time=milliseconds(started_at),
                tags=dict([tag, LAYOUT_TAG, ("mlflow.loggedImages", "true")]),
                run_name=name,
            )
            found = _runs_with(client, [experiment], tag)
            assert found, "MLflow finds a run that it has just made"
        homes = {run_id: str(one.info.experiment_id) for run_id, one in found.items()}
        run_id = min(found, key=lambda one: (one != known, homes[one] != experiment, one))
        data, (key, layout) = found[run_id].data, LAYOUT_TAG
        untold = data.tags.get(key) != layout
        run = cls(client, run_id, homes[run_id], tag, former=untold and bool(data.params))
        if untold and not run.former:
            run.tags({key: layout})
        run._delete_others(one for one, home in homes.items() if home == run.experiment)
        return run

    def delete_others(self) -> None:
        """Delete whatever else carries the tag in the run's experiment."""
        self._delete_others(_runs_with(self._client, [self.experiment], self._tag))

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

    def note(self, text: str, ours: Sequence[str | None]) -> None:
        """Set the description, if what stands there is one of `ours` (None: there is none): a person may have written
        another."""
        there = self._client.get_run(self.id).data.tags.get(_NOTE)
        if there in [None if one is None else one[:LONGEST_TAG] for one in ours]:
            self.tags({_NOTE: text})

    def data_sets(self, found: Sequence[DataSet]) -> None:
        """Log what was learned from and judged by; the same again is fine."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(
                    name=one.name,
                    digest=one.fingerprint[:DIGEST],
                    source_type=one.form,
                    source=json.dumps({"data_set": one.name, "format": one.form, "fingerprint": one.fingerprint}),
                    profile=json.dumps({"images": one.images}),
                ),
                [InputTag("mlflow.data.context", one.role)],
            )
            for one in found
        ]
        self._client.log_inputs(self.id, datasets=inputs)

    def picture(self, path: Path, name: str) -> None:
        """Put a PNG file at the top of the artifacts; one of the same name is replaced. Passed over if it is gone or
        damaged."""
        if (image := _read_picture(path)) is not None:
            self._client.log_image(self.id, image, artifact_file=_escaped(name))

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
            found = there.get((_escaped(key), step), {})
            if len(found) == 2 or (image := _read_picture(path)) is None:
                continue
            half = found.get(".png")
            name = _picture_name(key, step, at) if half is None else Path(half).stem
            self._picture(image, name, there=half is not None)
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

    def large_text(self, text: str, name: str, *, again: bool) -> None:
        """The same for one of megabytes. `again`: it was sent before, perhaps without an answer, and is not sent where
        one of its name and size is."""
        size = len(text.encode())
        if again and size in [one.file_size for one in self._client.list_artifacts(self.id) if one.path == name]:
            return
        with _patience(size):
            self.text(text, name)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Write a table that MLflow's pages show as one; one of the same name is replaced."""
        self.text(json.dumps({"columns": columns, "data": rows}), name)
        self.tags({"mlflow.loggedArtifacts": json.dumps([{"path": name, "type": "table"}])})

    def finish(self, status: str, at: datetime) -> None:
        """Set the final status: FINISHED, FAILED or KILLED."""
        self._client.set_terminated(self.id, status, milliseconds(at))

    def go_on(self) -> None:
        """Take back a final status."""
        self._client.update_run(self.id, status="RUNNING")

    def _delete_others(self, found: Iterable[str]) -> None:
        for run_id in found:
            if run_id != self.id:
                self._client.delete_run(run_id)

    def _picture(self, image: Image.Image, name: str, *, there: bool) -> None:
        """Upload a picture, unless it is there, and its thumbnail."""
        with tempfile.TemporaryDirectory() as folder:
            file, small = Path(folder) / f"{name}.png", Path(folder) / f"{name}+compressed.webp"
            if not there:
                image.save(file)
                self._client.log_artifact(self.id, str(file), "images")
            image.thumbnail((THUMBNAIL, THUMBNAIL))
            image.save(small)
            self._client.log_artifact(self.id, str(small), "images")


def _picture_name(key: str, step: int, at: datetime) -> str:
    """A new name for a picture, by which MLflow's pages know its key, step and time."""
    return f"{_escaped(key)}+step+{step}+timestamp+{milliseconds(at)}+{uuid4()}"


def _escaped(key: str) -> str:
    return key.replace("/", "~")


def _runs_with(client: Any, experiments: list[str], tag: tuple[str, str]) -> dict[str, Any]:
    """The runs of these experiments that carry the tag, by id; deleted ones do not count."""
    key, value = tag
    return {run.info.run_id: run for run in client.search_runs(experiments, f"tags.`{key}` = '{value}'")}


def jobs_in(client: Any, experiment: str) -> list[UUID]:
    """Jobs that have runs in an experiment, deleted ones as well: some of them, where there are many."""
    from mlflow.entities import ViewType

    found = client.search_runs([experiment], run_view_type=ViewType.ALL, max_results=100)
    tagged = (run.data.tags.get(JOB_TAG, "") for run in found)
    return [UUID(text) for text in tagged if _UUID.fullmatch(text)]


@contextlib.contextmanager
def _patience(size: int) -> Iterator[None]:
    """Let MLflow's client wait long enough for an upload of `size` bytes.

    It reads its timeout from the environment at every call and offers no other way, so all threads wait as long as the
    upload that needs most; small calls wait longer meanwhile if MLflow stops answering, when nothing can be sent.
    """
    seconds = SMALL_CALL_SECONDS + size // UPLOAD_BYTES_PER_SECOND
    with _UPLOADS_LOCK:
        _UPLOADS.append(seconds)
        _wait_for_uploads()
    try:
        yield
    finally:
        with _UPLOADS_LOCK:
            _UPLOADS.remove(seconds)
            _wait_for_uploads()


def _wait_for_uploads() -> None:
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(max([SMALL_CALL_SECONDS, *_UPLOADS]))


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
