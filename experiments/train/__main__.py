"""The training command: trains a network to be sparse, with cycles in the loss, and counts its exact cycles.

`python -m experiments.train data=mnist5k sparsity.cycles=0.1`; the last line printed is the output directory. Started
again with `resume=true hydra.run.dir=` that directory, or `resume=` that directory, it resumes where it stopped.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from experiments.harness import command
from experiments.harness.run import Run, main

if TYPE_CHECKING:
    from experiments.harness.tracking import Tracker
    from experiments.train.options import Training
    from phantom_jax import Phantom2D
    from phantom_jax.training import Checkpoints, Snapshot, Trainer


@main("train", resume=("resume=true",))
def train(run: Run) -> None:
    """Trains a network and counts its exact cycles."""
    # JAX takes seconds to import, which --help and tab completion need not wait for.
    from rich.console import Console

    from experiments.harness.files import write_whole
    from experiments.harness.tracking import read_points
    from experiments.train import options
    from experiments.train.figures import progress
    from phantom_jax import plotting
    from phantom_jax.tables import print_tables
    from phantom_jax.training import Checkpoints, Trainer, evaluate, phases_table
    from phantom_jax.workloads import write_npz

    arch, training = run.arch(), options.read(run.options)
    _resume_elsewhere(run, training)
    checkpoints = Checkpoints(run.directory / "checkpoints", training.identity)
    found = _found(checkpoints, training)
    trainer = Trainer(training.settings, training.network, training.splits, arch)
    if found is not None:
        trainer.restore(*found)
        command.note([f"resumes after step {trainer.step} of {trainer.steps}."])
    command.note(training.dataset.notes)

    with run.tracked(trainer.step if found else None):
        _train(trainer, checkpoints, training, arch, run.tracker)
        checkpoints.close()
        evaluation = evaluate(trainer.model, training.splits.test, arch, training.evaluated_images)
        phases = [{"phase": phase, **figures} for phase, figures in trainer.evaluations.items()]
        rows = evaluation.report.rows()
        run.csv(rows)
        images = slice(training.saved_images)
        saved = [dataclasses.replace(layer, activations=layer.activations[images]) for layer in evaluation.layers]
        masks = run.directory / "masks.npz"
        write_whole(masks, lambda file: write_npz(file, saved))
        run.table("layers", rows)
        run.table("phases", phases)
        run.tracker.summarize(evaluation.summary())
        run.tracker.artifact("masks", masks, "masks")
        points = read_points(run.directory / "log.jsonl")
        run.figures(
            {
                "stack": functools.partial(plotting.cycle_stack, evaluation.report),
                "progress": functools.partial(progress, points, trainer.ends),
            }
        )
        results = {"data_sha256": training.identity["data_sha256"], "phases": phases, "test": evaluation.summary()}
        run.finish({**results, "target_cycles": training.settings.cycles, **evaluation.report.to_dict()})

    off = options.off_target(training.settings, evaluation)
    if abs(off) > options.CLOSE:
        command.note([f"exact cycles on test images are {off:+.1%} off the target of {training.settings.cycles}."])
    evaluation.report.print(Console())
    print_tables([phases_table(phases)])


def _resume_elsewhere(run: Run, training: "Training") -> None:
    """Takes over the directory that `resume` names, if it does."""
    if isinstance(training.resume, bool):
        return
    if not (training.resume / "checkpoints").is_dir():
        raise ValueError(f"resume must name the directory of a run with checkpoints, got {str(training.resume)!r}.")
    run.resume_in(training.resume)


def _found(checkpoints: "Checkpoints", training: "Training") -> "Snapshot | None":
    """Returns the newest checkpoint, if the run is to resume from it, as one of a sweep always does."""
    if training.resume is False and not command.in_multirun():
        if not checkpoints.is_empty:
            raise ValueError(
                "the output directory holds checkpoints of an earlier run: resume=true resumes from them, another "
                "hydra.run.dir begins anew."
            )
        return None
    found = checkpoints.restore(lambda note: command.note([note]))
    if found is None and training.resume is not False:
        command.note(["there is no checkpoint to resume from, so training begins."])
    return found


def _train(
    trainer: "Trainer", checkpoints: "Checkpoints", training: "Training", arch: "Phantom2D", tracker: "Tracker"
) -> None:
    """Trains to the end, with a progress bar."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    from experiments.harness.options import named
    from experiments.harness.signals import between_steps
    from experiments.train.options import IN_GROUPS
    from phantom_jax.training import evaluate

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with between_steps() as is_over, command.progress(*columns) as bar:
        task = bar.add_task("", total=trainer.steps, completed=trainer.step)

        def report(figures: Mapping[str, Any], step: int) -> None:
            tracker.log(figures, step)
            shown = {"loss": "loss", "accuracy": "accuracy", "density": "density", "expected_cycles": "cycles"}
            texts = [f"{text} {figures[name]:.3f}" for name, text in shown.items() if name in figures]
            bar.update(task, completed=step, description=" ".join([figures["phase"], *texts]))

        def figures_of(model: Any) -> dict[str, Any]:
            of_test = evaluate(model, training.splits.test, arch, training.evaluated_images).summary()
            of_validation = evaluate(model, training.splits.validation, arch, 1)
            return {**of_test, "validation_accuracy": of_validation.accuracy, "density": float(model.density())}

        with named(IN_GROUPS):
            trainer.run(report, figures_of, checkpoints, training.checkpoint_every, is_over)


if __name__ == "__main__":
    command.run(train)
