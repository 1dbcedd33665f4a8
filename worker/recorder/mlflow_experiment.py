"""The MLflow experiment of one of ours: found by its id, whatever it is called there now.

A name is for people, who may change it in MLflow's page. The id stands in the run database; that it is still that
experiment, and not one of an MLflow that was made anew and counts from 1 again, is told by a tag of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

from service.mlflow_layout import VIEW, saved_view
from service.recording import EXPERIMENT_TAG

_OF_TRAINING = ("mlflow.experimentKind", "custom_model_development")
"""Has MLflow open the experiment on its pages for training; untold it guesses, and takes those for language models."""


class MlflowExperiment:
    """What one of our experiments is in MLflow. `id` and `name` are those of the run database.

    `owners` tells of an MLflow experiment by its id of which of our experiments runs are in it: former versions tagged
    none.
    """

    def __init__(self, client: Any, id: UUID, name: str, owners: Callable[[str], set[UUID]]) -> None:
        self._client = client
        self._id = id
        self._own = str(id)
        self._name = name
        self._owners = owners

    def find_or_create(self, stored: str | None) -> str:
        """Its id there, made if need be and brought back if it was deleted; `stored`: as it was known last."""
        found = None if stored is None else self._by_id(stored)
        if found is None or not self._is_ours(found):
            tagged = every_experiment(self._client, deleted=True, filter=f"tags.`{EXPERIMENT_TAG}` = '{self._own}'")
            found = next(tagged, None) or self._by_name()
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        self._claim(found)
        return str(found.experiment_id)

    def gather(self, stored: str | None) -> str | None:
        """The id of the eldest of several that are ours, which is the only one from now on; `stored`, if there are not
        several.

        Former versions made a second one when the first was renamed in MLflow's page: the eldest has the name that a
        person gave.
        """
        ours = [found for found in every_experiment(self._client) if self._is_ours(found)]
        if len(ours) < 2:
            return stored
        eldest, *others = ours
        self._claim(eldest)
        for other in others:
            if EXPERIMENT_TAG in other.tags:
                self._client.delete_experiment_tag(other.experiment_id, EXPERIMENT_TAG)
        return str(eldest.experiment_id)

    def _is_ours(self, found: Any) -> bool:
        if EXPERIMENT_TAG in found.tags:
            return bool(found.tags[EXPERIMENT_TAG] == self._own)
        owners = self._owners(found.experiment_id)
        return self._id in owners or (not owners and found.name == self._name)

    def _claim(self, found: Any) -> None:
        for key, value in self._tags().items():
            if key not in found.tags:
                self._client.set_experiment_tag(found.experiment_id, key, value)

    def _tags(self) -> dict[str, str]:
        return dict([(EXPERIMENT_TAG, self._own), _OF_TRAINING, (f"mlflow.sharedViewState.{VIEW}", saved_view())])

    def _by_id(self, id: str) -> Any | None:
        return _if_there(self._client.get_experiment, id)

    def _by_name(self) -> Any:
        """The one of our name, unless another one of ours was renamed to it; a new one if there is none."""
        found = self._client.get_experiment_by_name(self._name)
        if found is None:
            return self._create(self._name)
        return found if self._is_ours(found) else self._create(f"{self._name} ({self._own})")

    def _create(self, name: str) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            id = self._client.create_experiment(name, tags=self._tags())
        except MlflowException:  # another worker was faster, or it is a real failure and this raises it
            found = self._client.get_experiment_by_name(name)
            if found is None or not self._is_ours(found):
                raise
            return found
        return self._client.get_experiment(id)


def _if_there(get: Callable[[str], Any], id: str) -> Any | None:
    """What MLflow has under an id; None if it does not know it."""
    from mlflow.exceptions import MlflowException

    try:
        return get(id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def every_experiment(client: Any, *, deleted: bool = False, filter: str | None = None) -> Iterator[Any]:
    """MLflow's experiments, the eldest first; with `deleted` those as well."""
    from mlflow.entities import ViewType

    view, token = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY, None
    while True:
        page = client.search_experiments(view, filter_string=filter, order_by=["creation_time ASC"], page_token=token)
        yield from page
        if not (token := page.token):
            return
