"""The training job: trains a network to be sparse, with cycles in the loss, and counts its exact cycles.

`python -m experiments.train data=mnist5k sparsity.cycles=0.1`; the last line printed is the output directory. Started
again with `resume=true hydra.run.dir=` that directory, or `resume=` that directory, the job goes on where it stopped.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from experiments.harness import command
from experiments.harness.once import once

if TYPE_CHECKING:
    from experiments.harness.tracking import Tracker
    from experiments.train.options import Job
    from phantom_jax import Phantom2D
    from phantom_jax.training import Checkpoints, Trainer


@hydra.main(version_base="1.3", config_path=command.CONFIG_PATH, config_name="train")
@command.job
@once
def main(config: DictConfig) -> None:
    """Runs one job."""
    # JAX takes seconds to import, which --help and tab completion need not wait for.
    from rich.console import Console

    from experiments.harness import provenance
    from experiments.harness.files import save_figure, write_csv, write_json, write_whole
    from experiments.harness.options import make, plain
    from experiments.harness.tracked import tracked
    from experiments.train import figures as training_plotting
    from experiments.train import options as train_settings
    from phantom_jax import Phantom2D, plotting
    from phantom_jax.tables import print_tables
    from phantom_jax.training import Checkpoints, Trainer, evaluate, phases_table
    from phantom_jax.workloads import write_npz

    options = plain(config)
    arch = make(Phantom2D, options["arch"], "arch")
    job = train_settings.read(options)
    made = provenance.collect(config)  # before anything that was read can change
    directory = _directory(job)
    checkpoints = Checkpoints(directory / "checkpoints", job.identity)
    found = _found(checkpoints, job)
    trainer = Trainer(job.settings, job.network, job.splits, arch)
    if found is not None:
        trainer.restore(*found)
        command.tell([f"goes on after step {trainer.step} of {trainer.steps}."])
    command.tell(job.dataset.notes)

    with tracked(config, "train", directory, trainer.step if found else None) as tracker:
        _train(trainer, checkpoints, job, arch, tracker)
        checkpoints.close()
        evaluation = evaluate(trainer.model, job.splits.test, arch, job.evaluated_images)
        rows = [{"phase": phase, **figures} for phase, figures in trainer.evaluations.items()]
        results = {
            "schema_version": 1,
            **made,
            "data_sha256": job.identity["data_sha256"],
            "phases": rows,
            "test": evaluation.summary(),
            "target_cycles": job.settings.cycles,
            **evaluation.report.to_dict(),
        }
        write_csv(directory / "results.csv", evaluation.report.rows())
        saved = [
            dataclasses.replace(layer, activations=layer.activations[: job.saved_images]) for layer in evaluation.layers
        ]
        write_whole(directory / "masks.npz", lambda file: write_npz(file, saved))
        tracker.table("layers", evaluation.report.rows())
        tracker.table("phases", rows)
        tracker.summarize(evaluation.summary())
        tracker.artifact("masks", directory / "masks.npz", "masks")
        figures = {
            "stack": plotting.cycle_stack(evaluation.report),
            "progress": training_plotting.progress(_points(directory / "log.jsonl"), trainer.ends),
        }
        for name, figure in figures.items():
            tracker.figure(name, save_figure(figure, directory / name))
        write_json(directory / "results.json", results)
        tracker.artifact("results", directory / "results.json", "results")

    off = train_settings.off_target(job.settings, evaluation)
    if abs(off) > train_settings.CLOSE:
        command.tell([f"exact cycles on test images are {off:+.1%} off the target of {job.settings.cycles}."])
    evaluation.report.print(Console())
    print_tables([phases_table(rows)])
    print(directory, flush=True)


def _directory(job: "Job") -> pathlib.Path:
    """Returns the directory of the run, which may be that of an earlier job."""
    if isinstance(job.resume, bool):
        return command.output_directory()
    if not (job.resume / "checkpoints").is_dir():
        raise ValueError(f"resume must name the directory of a run with checkpoints, got {str(job.resume)!r}.")
    return job.resume


def _found(checkpoints: "Checkpoints", job: "Job") -> tuple[list[Any], dict[str, Any]] | None:
    """Returns the newest checkpoint, if the job is to go on from it, as one of a sweep always does."""
    if job.resume is False and not command.in_multirun():
        if not checkpoints.is_empty:
            raise ValueError(
                "the output directory holds checkpoints of an earlier run: resume=true goes on from them, another "
                "hydra.run.dir begins anew."
            )
        return None
    found = checkpoints.restore(lambda note: command.tell([note]))
    if found is None and job.resume is not False:
        command.tell(["there is no checkpoint to go on from, so training begins."])
    return found


def _train(trainer: "Trainer", checkpoints: "Checkpoints", job: "Job", arch: "Phantom2D", tracker: "Tracker") -> None:
    """Trains to the end, with a progress bar."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from phantom_jax.training import evaluate

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False)
    with bar:
        task = bar.add_task("", total=trainer.steps, completed=trainer.step)

        def tell(figures: Mapping[str, Any], step: int) -> None:
            tracker.log(figures, step)
            shown = {"loss": "loss", "accuracy": "accuracy", "density": "density", "expected_cycles": "cycles"}
            texts = [f"{text} {figures[name]:.3f}" for name, text in shown.items() if name in figures]
            bar.update(task, completed=step, description=" ".join([figures["phase"], *texts]))

        def figures_of(model: Any) -> dict[str, Any]:
            of_test = evaluate(model, job.splits.test, arch, job.evaluated_images).summary()
            of_validation = evaluate(model, job.splits.validation, arch, 1)
            return {**of_test, "validation_accuracy": of_validation.accuracy, "density": float(model.density())}

        trainer.run(tell, figures_of, checkpoints, job.checkpoint_every)


def _points(path: pathlib.Path) -> Sequence[Mapping[str, Any]]:
    """Returns what was logged of steps; a log that could not be written has none."""
    if not path.exists():
        return []
    return [record for record in map(json.loads, path.read_text().splitlines()) if "step" in record]


if __name__ == "__main__":
    command.run(main)
