"""What must come out the same on any number of ranks. Run by test_runtime_ranks.py: in its own process for one
rank, and as a script, `python rank_laws.py FOLDER`, on several.

Shape suffixes: 2 views, n images of a rank, d features of the embedding, f of the backbone.
"""

import sys
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import runs
import torch
from looks import Looking
from torch import Tensor, nn

from barlow_lab.specs import PclSpec, PretrainSpec, ViewsSpec, parse_spec
from barlow_lab.specs.loss_form import LossForm
from trainer.data.registry import open_images
from trainer.diagnostics.health import Health
from trainer.diagnostics.information_plane import InformationPlane
from trainer.evaluation import run_evaluation
from trainer.evaluation.view_moments import ViewMoments
from trainer.evaluation.view_pass import drawn_images, stream_views
from trainer.failures import Diverged
from trainer.objectives import k_means
from trainer.objectives.barlow_twins import barlow_twins
from trainer.objectives.base import ImageEmbeddings, Pauses, Run, build_objective
from trainer.optim.schedules import Schedule
from trainer.runtime import collectives, process_group
from trainer.runtime.batch_norm import synchronise_batch_norm
from trainer.runtime.rank_exit import end_process
from trainer.runtime.units import Units
from trainer.train_state import TrainState

GLOBAL_BATCH = 16
STEPS = 5
FORMS = get_args(LossForm)
OPTIMIZERS = {
    "lars": {"name": "lars", "learning_rate": 4.0, "bias_learning_rate": 0.01, "weight_decay": 1e-3},
    "sgd": {"name": "sgd", "learning_rate": 0.05, "nesterov": True},
    "adamw": {"name": "adamw", "learning_rate": 1e-3},
}
FROZEN = {"name": "tiny", "frozen": True, "statistics": "updated"}


def share(rows: Tensor, rank: int, ranks: int) -> Tensor:
    """This rank's rows: different data on every rank."""
    each = len(rows) // ranks
    return rows[rank * each : (rank + 1) * each]


def share_of_pieces(rows: Tensor, pieces: int, rank: int, ranks: int) -> Tensor:
    """This rank's rows where the batch goes through in pieces: its share of every one."""
    return torch.cat([share(piece, rank, ranks) for piece in rows.chunk(pieces)])


def batch_norm(rank: int, ranks: int, views: int, compiled: bool = False) -> dict[str, Tensor]:
    """Output, gradients and running statistics of BN over a batch with a large mean, then of eval mode."""
    generator = torch.Generator().manual_seed(0)
    x = 50 + torch.randn(GLOBAL_BATCH, 3, 4, 5, generator=generator, dtype=torch.float64)
    weights = torch.randn(GLOBAL_BATCH, 3, 4, 5, generator=generator, dtype=torch.float64)
    model = synchronise_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), views=views).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([0.5, -1.0, 2.0]))
        model[0].bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    mine = share_of_pieces(x, views, rank, ranks).clone().requires_grad_()
    network = torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager") if compiled else model
    out = network(mine)
    (out * share_of_pieces(weights, views, rank, ranks)).sum().backward()
    return {
        **{f"out {n}": collectives.all_gather_rows(rows) for n, rows in enumerate(out.chunk(views))},
        **{f"x.grad {n}": collectives.all_gather_rows(rows) for n, rows in enumerate(mine.grad.chunk(views))},
        "weight.grad": collectives.all_reduce_(model[0].weight.grad),
        "bias.grad": collectives.all_reduce_(model[0].bias.grad),
        **{f"eval {n}": collectives.all_gather_rows(rows) for n, rows in enumerate(model.eval()(mine).chunk(views))},
        **{name: buffer.clone() for name, buffer in model.named_buffers()},
    }


def uneven_batch_norm(rank: int, ranks: int) -> dict[str, Tensor]:
    """The same where ranks hold different numbers of rows, one of four none."""
    generator = torch.Generator().manual_seed(3)
    x = 50 + torch.randn(GLOBAL_BATCH, 3, 4, 5, generator=generator, dtype=torch.float64)
    weights = torch.randn(GLOBAL_BATCH, 3, 4, 5, generator=generator, dtype=torch.float64)
    model = synchronise_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), uneven=True).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([0.5, -1.0, 2.0]))
    cuts = {1: [0, 16], 2: [0, 11, 16], 4: [0, 7, 7, 8, 16]}[ranks]
    mine = slice(cuts[rank], cuts[rank + 1])
    rows = x[mine].clone().requires_grad_()
    out = model(rows)
    (out * weights[mine]).sum().backward()
    return {
        "out": collectives.all_gather_rows(out),
        "x.grad": collectives.all_gather_rows(rows.grad),
        "weight.grad": collectives.all_reduce_(model[0].weight.grad),
        "bias.grad": collectives.all_reduce_(model[0].bias.grad),
        **{name: buffer.clone() for name, buffer in model.named_buffers()},
    }


def objective(rank: int, ranks: int) -> dict[str, Tensor]:
    """The terms and the gradient of every embedding, in each form; the third feature of view a is dead."""
    generator = torch.Generator().manual_seed(1)
    views = 3 + torch.randn(2, GLOBAL_BATCH, 24, generator=generator, dtype=torch.float64)
    views[0, :, 2] = 0.7
    out = {}
    for form in FORMS:
        z_a, z_b = (share(view, rank, ranks).clone().requires_grad_() for view in views)
        terms = barlow_twins(z_a, z_b, 0.0051, form)
        (2 * terms.loss).backward()
        out |= {f"{form} {f.name}": torch.as_tensor(getattr(terms, f.name)).detach() for f in fields(terms)}
        out[f"{form} a.grad"] = collectives.all_gather_rows(z_a.grad)
        out[f"{form} b.grad"] = collectives.all_gather_rows(z_b.grad)
    return out


def of_embeddings(rank: int, ranks: int, *, width: int = 24, **of_objective: Any) -> dict[str, Tensor]:
    """An objective's terms, and the gradients of every embedding and of all that it trains itself; the third feature of
    view a is dead."""
    generator = torch.Generator().manual_seed(1)
    views = 3 + 0.7 * torch.randn(2, GLOBAL_BATCH, width, generator=generator, dtype=torch.float64)
    views[0, :, 2] = 0.7
    z_a, z_b = (share(view, rank, ranks).clone().requires_grad_() for view in views)
    spec = PretrainSpec.model_validate(
        {"data": "digits", "batch_size": GLOBAL_BATCH, "projector": {"widths": [width]}, "objective": of_objective}
    )
    made = build_objective(spec.objective)
    made.begin(Run(GLOBAL_BATCH, width, epochs=2, seed=0, device=torch.device("cpu"), dtype=torch.float64))
    parts = synchronise_batch_norm(nn.ModuleDict() if made.parts is None else made.parts).double()
    made.before_step(2, share(torch.arange(GLOBAL_BATCH), rank, ranks))
    terms = made(z_a, z_b)
    (2 * terms.loss).backward()
    gradients = {name: z.grad for name, z in (("a", z_a), ("b", z_b)) if z.grad is not None}
    return {
        "loss": terms.loss.detach(),
        **terms.parts,
        **{f"{name}.grad": collectives.all_gather_rows(gradient) for name, gradient in gradients.items()},
        **{f"{name}.grad": collectives.all_reduce_(p.grad) for name, p in parts.named_parameters()},
        # Means of standardised rows are 0 but for their rounding, of which nothing is the same.
        **{name: buffer.clone() for name, buffer in parts.named_buffers() if not name.endswith("running_mean")},
    }


BARLOW_TWINS = {
    "none": {"normalisation": "none"},
    "feature": {"normalisation": "feature", "stop_gradient": True},
    "auto": {"redundancy": "auto"},
    "sharded auto": {"redundancy": "auto_a", "form": "sharded"},
    "logarithms": {"loss": "cross_entropy", "temperature": 0.3, "lambda": 0.7},
    "predictor": {"predictor_width": 7},
}
"""Variants, by name."""


def barlow_twins_variants(rank: int, ranks: int) -> dict[str, Tensor]:
    """Of each what there is of embeddings."""
    found = {name: of_embeddings(rank, ranks, **fields) for name, fields in BARLOW_TWINS.items()}
    return {f"{name}: {one}": value for name, values in found.items() for one, value in values.items()}


def pcl(rank: int, ranks: int) -> dict[str, Tensor]:
    """Its terms and the gradient of every query, from clusters that every rank has found, and its state afterwards."""
    generator = torch.Generator().manual_seed(4)
    images = torch.randn(40, 24, generator=generator, dtype=torch.float64)
    views = images[:GLOBAL_BATCH] + 0.3 * torch.randn(2, GLOBAL_BATCH, 24, generator=generator, dtype=torch.float64)
    loss = build_objective(PclSpec(name="pcl", queue=32, clusters=[3, 9], negatives=4, warmup_epochs=0))
    loss.begin(Run(GLOBAL_BATCH, 24, epochs=2, seed=0, device=torch.device("cpu"), dtype=torch.float64))
    embeddings = ImageEmbeddings(images, torch.arange(40), 40)
    k_means.DISTANCES = 60  # several blocks, for every rank some
    loss.before_epoch(0, embeddings, Pauses(lambda: None, lambda: None))
    z_a, z_b = (share(view, rank, ranks).clone().requires_grad_() for view in views)
    loss.before_step(2, share(torch.arange(GLOBAL_BATCH), rank, ranks))
    terms = loss(z_a, z_b)
    (2 * terms.loss).backward()
    loss.after_step(torch.tensor(True))
    state = loss.state_dict()
    clusterings = {f"{name} {place}": one[name] for place, one in enumerate(state["prototypes"]) for name in one}
    gradient = collectives.all_gather_rows(z_a.grad)
    return {"loss": terms.loss.detach(), **terms.parts, "a.grad": gradient, "queue": state["queue"], **clusterings}


def training(
    optimizer: dict[str, Any],
    rank: int,
    ranks: int,
    pieces: int = 1,
    backbone: str | dict[str, Any] = "tiny",
    side: int = 16,
    width: int = 24,
    objective: str = "barlow_twins",
    **of_objective: Any,
) -> dict[str, Tensor]:
    """All parameters and buffers after a few whole steps in float64."""
    spec = PretrainSpec.model_validate(
        {
            "data": "digits",
            "views": {"size": side},
            "backbone": {"name": backbone} if isinstance(backbone, str) else backbone,
            "projector": {"widths": [24, width]},
            "objective": {"name": objective, **of_objective},
            "optimizer": {"reference_batch_size": None, **optimizer},
            "batch_size": GLOBAL_BATCH,
            "micro_batch": GLOBAL_BATCH // pieces if pieces > 1 else None,
            "precision": "fp64",
        }
    )
    state = TrainState(spec, Schedule(1, 2 * STEPS, 0.0), torch.device("cpu"))
    generator = torch.Generator().manual_seed(2)
    out = {}
    for step in range(1, STEPS + 1):
        views = torch.randint(0, 256, (2, GLOBAL_BATCH, 3, side, side), generator=generator, dtype=torch.uint8)
        views[1] = (views[0].float() * 0.8 + views[1].float() * 0.2).to(torch.uint8)
        places = share_of_pieces(torch.arange(GLOBAL_BATCH), pieces, rank, ranks).numpy()
        update = state.update(*(share_of_pieces(view, pieces, rank, ranks) for view in views), step, places)
        out[f"loss {step}"] = update.terms.loss.detach()
        out[f"norm {step}"] = update.gradient_norm
    state.raise_if_diverged()
    saved = state.state_dict()
    networks = saved["model"] | {f"momentum {name}": one for name, one in saved.get("momentum_network", {}).items()}
    return {**out, **{k: v.double() for k, v in networks.items()}}


def health(rank: int, ranks: int) -> dict[str, Tensor]:
    """What rank 0 finds is what all say, though others see another collapse; by it all end, at the same step."""
    z = torch.randn(GLOBAL_BATCH, 6, generator=torch.Generator().manual_seed(0))
    mine = z[:, :1] * torch.ones(6) if rank == 0 else torch.ones_like(z)
    with tempfile.TemporaryDirectory() as folder:
        context = runs.context(Path(folder), rank=rank, world_size=ranks)
        said = Looking(context).at(Health, 3, (z, z), mine, mine).last_words
        ended = 0
        try:
            Looking(context, stop_on=["collapse"]).at(Health, 4, (z, z), mine, mine)
        except Diverged as error:
            ended = error.step
    return {"words": torch.tensor(list(str(said).encode())), "ended": torch.tensor(ended)}


def view_moments(rank: int, ranks: int) -> dict[str, Tensor]:
    """Moments of features far from 0, of batches of any size, on four ranks one of which has no image."""
    generator = torch.Generator().manual_seed(6)
    views = 50 + torch.randn(2, GLOBAL_BATCH, 6, generator=generator, dtype=torch.float64)
    cuts = {1: [0, 16], 2: [0, 11, 16], 4: [0, 7, 7, 8, 16]}[ranks]
    moments = ViewMoments(6, torch.device("cpu"), autos=True)
    for start in range(cuts[rank], cuts[rank + 1], 4):
        rows = slice(start, min(start + 4, cuts[rank + 1]))
        moments.take(views[0, rows], views[1, rows])
    moments.over_ranks_()
    assert moments.autos_2dd is not None
    return {
        "samples": torch.tensor(moments.samples),
        "means": moments.means_2d,
        "squares": moments.squares_2d,
        "cross": moments.cross_dd,
        "autos": moments.autos_2dd,
    }


def information_plane(rank: int, ranks: int) -> dict[str, Tensor]:
    """What is found of the batch that has gone through the network on all ranks."""
    views = torch.rand(2, 3 * GLOBAL_BATCH, 3, 16, 16, generator=torch.Generator().manual_seed(5)).mul(255).byte()
    spec = PretrainSpec.model_validate(
        {"data": "digits", "batch_size": 3 * GLOBAL_BATCH, "backbone": {"name": "tiny"}, "projector": {"widths": [16]},
         "precision": "fp64", "views": {"size": 16}, "micro_batch": GLOBAL_BATCH}
    )  # fmt: skip
    state = TrainState(spec, Schedule(1, 2 * STEPS, 0.0), torch.device("cpu"))
    update = state.update(*(share_of_pieces(view, 3, rank, ranks) for view in views), 1)
    seen = [collectives.all_gather_rows(rows) for rows in (update.z_a_nd, update.z_b_nd, *update.features_2nf)]
    with tempfile.TemporaryDirectory() as folder:
        context = runs.context(Path(folder), rank=rank, world_size=ranks)
        looking = Looking(context).at(InformationPlane, 3, (seen[0], seen[1]), seen[0], seen[1], (seen[2], seen[3]))
    (found,) = looking.state_dict()["information_plane"]
    return {name: torch.tensor(value) for name, value in found.items()}


def view_pass(rank: int, ranks: int) -> dict[str, Tensor]:
    """Moments of blocks of 4 or 5 images, in batches of 3: of four ranks one has none of a batch."""
    dataset = open_images("digits", "train", limit=90)
    views = ViewsSpec.model_validate({"preset": "small_images", "size": 8})
    with tempfile.TemporaryDirectory() as folder:
        context = runs.context(Path(folder), rank=rank, world_size=ranks)
        blocks = list(
            stream_views(
                lambda pixels: pixels.flatten(1)[:, ::40], dataset, views, drawn_images(90, 70, seed=3), seed=3,
                batch_size=3, phase="views", context=context, units=Units(context), dtype=torch.float64,
            )
        )  # fmt: skip
    return {
        "samples": torch.tensor([block.samples for block in blocks]),
        "cross": torch.stack([block.cross_dd for block in blocks]),
        "means": torch.stack([block.means_2d for block in blocks]),
    }


def closed_form(rank: int, ranks: int) -> dict[str, Tensor]:
    """The scores of a whole evaluation, on pixels, and the symmetry defect by the number of images."""
    spec = parse_spec(
        {"kind": "closed_form", "data": "digits", "backbone_from": {"pixels": True}, "samples": 200, "held_out": 90,
         "views": {"preset": "grayscale", "size": 8}, "batch_size": 7, "distributions": "two", "floor": 0.01}
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        result = run_evaluation(spec, runs.context(Path(folder), rank=rank, world_size=ranks))  # type: ignore[arg-type]
    assert result is not None
    return {
        **{name: torch.tensor(score["last"]) for name, score in result["scores"].items()},
        "kept": torch.tensor(result["kept"]),
        "symmetry": torch.tensor([list(one.values()) for one in result["symmetry"]]),
    }


def all_laws(rank: int, ranks: int) -> dict[str, dict[str, Tensor]]:
    """Every law's numbers, the same whatever `ranks`."""
    rows = torch.arange(7.0).view(7, 1)
    cut = [0, 5, 5, 6, 7] if ranks == 4 else [0, 5, 7] if ranks == 2 else [0, 7]  # one of four ranks has nothing
    return {
        "batch_norm": batch_norm(rank, ranks, views=1),
        "split_batch_norm": batch_norm(rank, ranks, views=2),
        "compiled_batch_norm": batch_norm(rank, ranks, views=2, compiled=ranks == 2),
        "uneven_batch_norm": uneven_batch_norm(rank, ranks),
        "objective": objective(rank, ranks),
        "vicreg": of_embeddings(rank, ranks, name="vicreg"),
        "nt_xent": of_embeddings(rank, ranks, name="nt_xent"),
        "infonce": of_embeddings(rank, ranks, name="infonce"),
        "infonce with its positive": of_embeddings(rank, ranks, name="infonce", positive_in_sum=True),
        "w_mse": of_embeddings(rank, ranks, width=4, name="w_mse", iterations=2),
        "view_distance": of_embeddings(rank, ranks, name="view_distance", variance=3.0),
        "bottleneck": of_embeddings(rank, ranks, name="information_bottleneck", shrinkage="oas"),
        "barlow_twins_variants": barlow_twins_variants(rank, ranks),
        "simsiam": of_embeddings(rank, ranks, name="simsiam"),
        "pcl": pcl(rank, ranks),
        **{name: training(optimizer, rank, ranks) for name, optimizer in OPTIMIZERS.items()},
        "pieces": training(OPTIMIZERS["lars"], rank, ranks, pieces=2),
        "vicreg in pieces": training(OPTIMIZERS["lars"], rank, ranks, pieces=2, objective="vicreg"),
        "nt_xent in pieces": training(OPTIMIZERS["lars"], rank, ranks, pieces=2, objective="nt_xent"),
        "infonce trained": training(OPTIMIZERS["lars"], rank, ranks, objective="infonce"),
        # On four ranks two have no sub-batch.
        "w_mse in pieces": training(
            OPTIMIZERS["lars"], rank, ranks, pieces=2, width=4, objective="w_mse", shrinkage=0.01
        ),
        # Of 16 images C_Z is by features, C_Z|X by samples.
        "bottleneck in pieces": training(
            OPTIMIZERS["adamw"], rank, ranks, pieces=2, objective="information_bottleneck"
        ),
        "predictor": training(OPTIMIZERS["adamw"], rank, ranks, predictor_width=24, stop_gradient=True),
        "simsiam in pieces": training(OPTIMIZERS["sgd"], rank, ranks, pieces=2, objective="simsiam", standardise=False),
        "momentum copy": training(
            OPTIMIZERS["lars"], rank, ranks, objective="pcl", queue=2 * GLOBAL_BATCH, momentum=0.9
        ),
        "frozen": training(OPTIMIZERS["lars"], rank, ranks, pieces=2, backbone=FROZEN),
        # A network that torchvision builds with dropout, which would draw on every rank what it draws on one.
        "dropout": training(OPTIMIZERS["lars"], rank, ranks, backbone="squeezenet1_1", side=32),
        "health": health(rank, ranks),
        "view_moments": view_moments(rank, ranks),
        "information_plane": information_plane(rank, ranks),
        "view_pass": view_pass(rank, ranks),
        "closed_form": closed_form(rank, ranks),
        "rows": {"gathered": collectives.all_gather_rows(rows[cut[rank] : cut[rank + 1]])},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = process_group.join()
    torch.save(all_laws(place.rank, place.world_size), Path(sys.argv[1]) / f"{place.rank}.pt")
    process_group.leave()
    end_process(0)
