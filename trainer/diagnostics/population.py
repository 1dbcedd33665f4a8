"""The cross-correlation of many images beside that of a batch, which is mostly noise where features are decorrelated.

The matrix is that of the population as N images estimate it (trainer.evaluation.view_moments), and the network is in
evaluation mode: neither knows the batch. Its error is stated beside it, by the scatter of parts of the images.
"""

from __future__ import annotations

from functools import partial
from typing import Self

import numpy as np
from torch import Tensor

from barlow_lab.disk import naming
from barlow_lab.specs.common import PopulationSpec, sample_fault
from trainer.diagnostics.base import Diagnosed, NetworkDiagnostic, NetworkSeen, Records
from trainer.diagnostics.correlation_record import record_arrays, summarise
from trainer.diagnostics.correlation_statistics import matrix_statistics
from trainer.diagnostics.heatmap import draw_heatmap
from trainer.diagnostics.spectra import moment_spectra
from trainer.diagnostics.spectrum_picture import draw_spectrum
from trainer.evaluation.view_moments import MatrixSums, Scatter, ViewMoments, matrix_sums, scatter, symmetry_defect
from trainer.evaluation.view_pass import drawn_images, stream_views
from trainer.failures import BadSpec
from trainer.objectives.correlation import noise_floor
from trainer.runtime.precision import PARAMETER_DTYPES, exact_products
from trainer.runtime.units import UnitsWithinStep
from trainer.runtime.untouched import untouched

PLACE = "run.record.population"


class Population(NetworkDiagnostic):
    """Shows the network two views of the same images after every `every_epochs`, and at the end."""

    name = "population"
    metric_names = (
        "population_images",
        "population_diagonal_mean",
        "population_diagonal_mean_error",
        "population_off_diagonal",
        "population_off_diagonal_error",
        "population_off_diagonal_floor",
        "population_off_diagonal_rms",
        "population_entry_error",
        "population_symmetry_defect",
        "population_symmetry_defect_floor",
        "population_symmetry_defect_noise",
    )
    picture_keys = ("population", "population-spectrum")
    every_rank = True
    observed_key = "population_observed"

    def __init__(self, run: Diagnosed, asked: PopulationSpec) -> None:
        """Raises:
        BadSpec: there are too few images.
        """
        super().__init__()
        if said := sample_fault(len(run.images)):
            raise BadSpec(f"{PLACE}: {said}, or leave it out")
        self._spec = run.spec
        self._plan = run.plan
        self._context = run.context
        self._images = run.images
        self._record = run.spec.run.record
        self._every = asked.every_epochs or self._record.correlation_every_epochs
        self._places = drawn_images(len(run.images), asked.images, seed=run.spec.seed)

    @classmethod
    def of(cls, run: Diagnosed) -> Self | None:
        asked = run.spec.run.record.population
        return None if asked is None else cls(run, asked)

    def due(self, step: int) -> bool:
        return self._plan.ends_epoch(step, self._every)

    def observe(self, seen: NetworkSeen, records: Records) -> None:
        """Look at the network, and record what is seen. A look that cannot be is warned of, and training goes on.

        Raises:
            DataError: an image cannot be loaded, though it can be read.
            Stopped: a stop was asked for.
        """
        try:
            with exact_products(self._context.device):
                moments, found = self._look(seen)
        except BadSpec as error:  # all ranks have it: none is left in a collective
            self._context.warn(f"no population at step {seen.step}: {error}")
            return
        self._tell(moments, found, seen.step, records)

    def _look(self, seen: NetworkSeen) -> tuple[ViewMoments, Scatter]:
        def embed(pixels: Tensor) -> Tensor:
            embeddings: Tensor = seen.network["projector"](seen.network["backbone"](pixels))
            return embeddings

        whole: ViewMoments | None = None
        parts: list[MatrixSums] = []
        with untouched(seen.network, self._context.device):
            for block in stream_views(
                embed,
                self._images,
                self._spec.views,
                self._places,
                seed=self._spec.seed,
                batch_size=self._spec.micro_batch or self._spec.batch_size,
                phase=self.name,
                context=self._context,
                units=UnitsWithinStep(self._context),
                dtype=PARAMETER_DTYPES[self._spec.precision],
                autos=self._record.spectra,
            ):
                parts.append(matrix_sums(block.correlation(), block.features))
                if whole is None:
                    whole = block
                else:
                    whole.join(block)
                self._context.working(self.name)
        assert whole is not None
        sums = matrix_sums(whole.correlation(), whole.features)
        return whole, scatter(parts, sums, whole.features, whole.samples)

    def _tell(self, moments: ViewMoments, error: Scatter, step: int, records: Records) -> None:
        tick, writes = partial(self._context.working, self.name), self._context.journal is not None
        found = matrix_statistics(
            moments.correlation(),
            samples=moments.samples,
            features=moments.features,
            device=self._context.device,
            tick=tick,
            keep_whole=self._record.whole_correlation and writes,
            spectra=partial(moment_spectra, moments, tick) if self._record.spectra and writes else dict,
        )
        summary = summarise(found, off_diagonal_weight=None)
        if writes:
            arrays = record_arrays(found, step=step, order=self._record.heatmap_order)
            tick()
            path = records.path("population", "npz")
            with naming(path), path.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)
            tick()
            title = (f"step {step:,}", f"{moments.samples:,} images")
            records.picture("population", partial(draw_heatmap, arrays=arrays, summary=summary, title=title))
            if self._record.spectra:
                tick()
                records.picture("population-spectrum", partial(draw_spectrum, arrays=arrays, summary=summary))
        records.metrics(
            {
                "population_images": float(moments.samples),
                "population_diagonal_mean": summary["diagonal"]["mean"],
                "population_diagonal_mean_error": error.diagonal_mean,
                "population_off_diagonal": summary["off_diagonal"],
                "population_off_diagonal_error": error.off_diagonal,
                "population_off_diagonal_floor": noise_floor(moments.features, moments.samples),
                "population_off_diagonal_rms": summary["off_diagonal_rms"],
                "population_entry_error": error.entry,
                "population_symmetry_defect": summary["symmetry_defect"],
                "population_symmetry_defect_floor": summary["symmetry_defect_floor"],
                "population_symmetry_defect_noise": symmetry_defect(error.asymmetry, summary["off_diagonal"]),
            }
        )
