"""python -m trainer SPEC --run-dir DIR"""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] == os.getcwd():
    del sys.path[0]  # `python -m` puts it first: no queue.py or random.py of whatever folder this is started in
# An empty part of PYTHONPATH, as shells make with $PYTHONPATH:/opt/x, stands for that folder, too. Ours may be there.
if "" in (os.environ.get("PYTHONPATH") or "-").split(os.pathsep) and not __file__.startswith(os.getcwd() + os.sep):
    sys.path[:] = [folder for folder in sys.path if folder != os.getcwd()]

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from barlow_lab import kernel
from barlow_lab.commands import run_command
from barlow_lab.environment import HIDE
from trainer.runtime import caches, rendezvous, signals
from trainer.runtime.rank_exit import end_process

COMMAND = "barlow-train"
DESCRIPTION = """\
Run one job without any service: pretrain a backbone with Barlow Twins, or evaluate one.

  barlow-train recipes/digits.yaml --run-dir runs/digits
  barlow-train recipes/digits.yaml --run-dir runs/digits --ranks 2
  barlow-train knn.yaml --run-dir runs/digits-knn --backbone runs/digits/backbone
  barlow-train knn-of-file.yaml --run-dir runs/published-knn --backbone weights/resnet50.pth
  barlow-train own.yaml --run-dir runs/own --data photos=/data/photos
  barlow-train own.yaml --run-dir runs/own --data photos=images:/data/unsorted
  barlow-train voc.yaml --run-dir runs/voc --datasets /data/datasets.yaml

`python -P -m trainer` is the same command; without -P it takes the trainer.py of the folder it is started in, if there
is one.

The same command on the same run directory goes on from the newest checkpoint that is whole, as a new attempt. Ctrl-C
writes a checkpoint first, and so does TERM or the end of an SSH session (under nohup it goes on); a Ctrl-C after one of
these does not. The result of a run depends on the spec alone, not on how many ranks: batch_size is that of all ranks
together. With one rank that fails all end, and so they do with the command that started them.
"""

EPILOG = """\
In the run directory:
  spec.json                     the spec with every default written out
  backbone/                     model.safetensors and config.json, once a pretraining is done
  attempts/0001/journal.jsonl   metrics, progress, checkpoints, one JSON object a line
  attempts/0001/correlation/    the cross-correlation matrix over training, .npz and .png
  attempts/0001/outcome.json    how the attempt ended, and its result

Exit status: 0 if the job is done or was asked to stop, 1 otherwise.
"""


def main() -> NoReturn:
    """The command; it ends this process."""
    run_command(_called(), _main, needs_folder=True)


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog=_called(),
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"barlow-lab {version('barlow-lab')}")
    parser.add_argument("spec", type=Path, metavar="SPEC", help="the job: a YAML or JSON file")
    parser.add_argument("--run-dir", type=Path, required=True, metavar="DIR", help="made if it is not there")
    parser.add_argument(
        "--backbone",
        type=Path,
        metavar="PATH",
        help="for an evaluation: the `backbone` folder of a pretraining or one of its checkpoint folders; with "
        "backbone_from.file also a file of weights that others wrote, with backbone_from.torchvision its file or the "
        "folder that has it; docs/backbones.md",
    )
    parser.add_argument(
        "--data",
        type=_named_folder,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="the folder of a data set that is not built in: a tree DIR/SPLIT/CLASS/IMAGE, or as NAME=images:DIR any "
        "folder of images without labels, flat or nested, all of it split `train`; may be given several times",
    )
    parser.add_argument(
        "--datasets",
        type=Path,
        metavar="FILE",
        help="a datasets.yaml: where data sets of any known format are on this host; docs/data-sets.md",
    )
    parser.add_argument(
        "--ranks",
        type=int,
        default=1,
        metavar="N",
        help="processes that share the work, all on this host: each on a GPU of its own (of those that "
        "CUDA_VISIBLE_DEVICES names, if it is set), or on the CPU where there is none; left out: one",
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="CPU threads of each rank; left out: OMP_NUM_THREADS, or all cores by the number of ranks",
    )
    parser.add_argument(
        "--attempt",
        type=int,
        metavar="N",
        help="set by a worker, which has made attempts/N with its inputs.json; by hand leave it out",
    )
    arguments = parser.parse_args()
    if arguments.threads is not None and arguments.threads < 1:
        parser.error("--threads must be at least 1")
    names = [name for name, _ in arguments.data]
    if twice := next((name for name in names if names.count(name) > 1), None):
        parser.error(f"--data {twice} is given twice; give each folder a name of its own")
    if arguments.ranks < 1:
        parser.error("--ranks must be at least 1")
    if arguments.ranks > 1 and (arguments.attempt is not None or "TORCHELASTIC_RUN_ID" in os.environ):
        parser.error("--ranks starts the ranks by itself: not under a worker, and not under torchrun")
    # All this before torch is loaded, which takes seconds.
    kernel.die_with_parent()
    if HIDE in os.environ:  # a worker: its ranks share an account with it and with those of other jobs
        kernel.hide()
        kernel.give_up_privileges()
    if arguments.ranks > 1:
        end_process(_launch(arguments))
    signals.stacks_on_signal()
    signals.hear_stop()
    rendezvous.arrive()
    # Jobs share the cores of a host: a thread that spins while it waits takes them from the one it waits for (measured
    # on 2 busy cores: 96 images/s spinning, 420 not).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    caches.keep_private(arguments.run_dir.resolve())
    try:
        from trainer.execution import execute
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is missing: the trainer is an extra, pip install 'barlow-lab[trainer]'")

    execute(
        arguments.spec,
        arguments.run_dir.resolve(),
        attempt=arguments.attempt,
        backbone=arguments.backbone,
        data=dict(arguments.data),
        data_sets=arguments.datasets,
        threads=arguments.threads,
    )


def _launch(arguments: argparse.Namespace) -> int:
    """Run the ranks; what can be refused before there are any is refused once."""
    from barlow_lab.foreign_text import shown
    from barlow_lab.specs import SpecError, load_spec_file, parse_spec
    from trainer import launching  # late: ranks and --help do not wait for it

    try:
        parse_spec(load_spec_file(arguments.spec))
        caches.keep_private(arguments.run_dir.resolve())
        return launching.launch(_of_one_rank(arguments), arguments.ranks)
    except (OSError, ValueError) as error:
        lines = error.lines if isinstance(error, SpecError) else [str(error)]
        print(*map(shown, lines), sep="\n", file=sys.stderr)
        return 1


def _of_one_rank(arguments: argparse.Namespace) -> list[str]:
    """The command of each rank."""
    given = {
        "run-dir": arguments.run_dir,
        "backbone": arguments.backbone,
        "datasets": arguments.datasets,
        "threads": arguments.threads,
    }
    options = [f"--{name}={value}" for name, value in given.items() if value is not None]
    options += [f"--data={name}={folder}" for name, folder in arguments.data]
    return [sys.executable, "-P", "-m", "trainer", *options, "--", str(arguments.spec)]


def _called() -> str:
    """The command of this run, for its usage."""
    return "python -m trainer" if Path(sys.argv[0]).name == "__main__.py" else COMMAND


def _named_folder(argument: str) -> tuple[str, str]:
    name, _, folder = argument.partition("=")
    if not name or not folder.removeprefix("images:"):
        raise argparse.ArgumentTypeError(
            f"{argument!r} is not NAME=DIR, for example photos=/data/photos, or photos=images:/data/photos"
        )
    return name, folder


if __name__ == "__main__":
    main()
