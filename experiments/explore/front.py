"""What surrounds the trials of an architecture search: its study, which resumes, and its front."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, flag_override

from experiments.harness import command
from experiments.harness.options import check_names
from experiments.harness.sweeps import Sweep

OPTIONS = ("arch", "workload", "tracking", "multipliers", "seed")
_PRESETS = ("phantom_cv", "phantom_md", "phantom_hp")


class Front(Sweep):
    """Makes a multirun resume its study, and writes the front at its end."""

    again = "Other meshes are tried in their place with"

    def begin(self, config: DictConfig) -> None:
        """Names the study by the options that its trials share, and asks for the trials that are missing."""
        import optuna

        from phantom_jax.checks import integer, number

        sweeper = config.hydra.sweeper
        check_names([str(name) for name in config if name != "hydra"], OPTIONS)
        for name in ("n_trials", "n_jobs"):
            integer(f"hydra.sweeper.{name}", sweeper[name], minimum=1)
        rate = sweeper.max_failure_rate
        number("hydra.sweeper.max_failure_rate", rate, "a number from 0 to 1", lambda rate: 0 <= rate <= 1)
        if sweeper.get("storage") is None:
            command.note(["no front will be written, as hydra.sweeper.storage is null: the study is not kept."])
            return
        with flag_override(config, ["readonly", "struct"], False), _opened(sweeper.storage):
            if sweeper.study_name is None:
                sweeper.study_name = f"explore-{_digest(config)}"
            for name in ("optuna", "alembic"):
                logging.getLogger(name).setLevel(logging.WARNING)
            directions = [str(getattr(value, "name", value)) for value in sweeper.direction]
            study = optuna.create_study(
                study_name=sweeper.study_name, storage=sweeper.storage, directions=directions, load_if_exists=True
            )
            known = [_params(trial) for trial in study.trials if trial.state.name in ("COMPLETE", "WAITING")]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                for params in _presets(config).values():
                    if params not in known:  # some may have been lost with a run that was killed
                        study.enqueue_trial(params)
            done = len(_complete(study))
            sweeper.n_trials = max(sweeper.n_trials - done, 0)
            if "seed" in sweeper.sampler:  # another one, or it would draw the same meshes again
                sweeper.sampler.seed = (config.seed if sweeper.sampler.seed is None else sweeper.sampler.seed) + done
        if done:
            command.note([f"the study resumes after {done} trials; {sweeper.n_trials} are left."])

    def end(self, config: DictConfig, failed: Sequence[str]) -> None:
        """Writes the front of the meshes that did not fail as a table, a figure and JSON."""
        import optuna

        from experiments.harness.files import save_figures, write_csv, write_json
        from phantom_jax.tables import print_tables

        sweeper, directory = config.hydra.sweeper, pathlib.Path(config.hydra.sweep.dir)
        if sweeper.get("storage") is None:
            return
        with _opened(sweeper.storage):
            study = optuna.load_study(study_name=sweeper.study_name, storage=sweeper.storage)
            rows = _rows(_complete(study), _presets(config))
        if rows:
            results = {"schema_version": 1, "study": study.study_name, "trials": rows}
            write_json(directory / "front.json", results)
            write_csv(directory / "front.csv", [{**row, "params": json.dumps(row["params"])} for row in rows])
            save_figures(directory, {"front": functools.partial(_figure, rows)})
            print_tables([_table(rows)])
        print(directory, flush=True)


@contextlib.contextmanager
def _opened(storage: str) -> Iterator[None]:
    """Names the database of the study in its errors.

    Raises:
        ValueError: It is damaged, it cannot be written, or it is not a database.
    """
    import optuna
    import sqlalchemy.exc

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"hydra.sweeper.storage must be a database that can be read and written, got {storage}: {reason}. Another "
            "hydra.sweep.dir begins a new study."
        ) from error


def _digest(config: DictConfig) -> str:
    """Returns a digest of what trials have in common, so that only those of like options are compared."""
    import phantom_jax
    from experiments.harness import provenance

    shared = {
        "phantom_jax": phantom_jax.__version__,
        **{name: OmegaConf.to_container(config[name]) for name in ("arch", "workload")},
        **{name: config[name] for name in ("multipliers", "seed")},
        **provenance.inputs(config),
        "params": OmegaConf.to_container(config.hydra.sweeper.params),
        "overrides": sorted(o for o in config.hydra.overrides.task if not o.startswith("tracking")),
    }
    return hashlib.sha256(json.dumps(shared, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _presets(config: DictConfig) -> dict[str, dict[str, Any]]:
    """Returns the presets as trials, with which a search begins if its meshes are those of the configuration."""
    from phantom_jax import Phantom2D

    overrides = [*config.hydra.overrides.task, *config.hydra.overrides.hydra]
    if any(o.lstrip("+~").startswith(("arch", "hydra.sweeper.params")) for o in overrides):
        return {}
    presets = {}
    for name in _PRESETS:
        arch = Phantom2D.preset(name)
        values = dataclasses.asdict(arch)
        column = arch.multipliers // values.pop("cols")
        if config.multipliers in range(arch.multipliers, arch.multipliers + column):  # leaves it as many columns
            presets[name] = {f"arch.{option}": value for option, value in values.items()}
    return presets


def _complete(study: Any) -> list[Any]:
    return [trial for trial in study.trials if trial.state.name == "COMPLETE"]


def _params(trial: Any) -> dict[str, Any]:
    """Returns the parameters of a trial, or those that it has been asked for if it has not begun."""
    return trial.system_attrs.get("fixed_params", trial.params)


def _rows(trials: list[Any], presets: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns each mesh once, by cycles, with its preset and whether it is on the front."""
    meshes = {json.dumps(trial.params, sort_keys=True): trial for trial in trials}.values()
    rows, least = [], float("inf")
    for trial in sorted(meshes, key=lambda trial: trial.values):
        cycles, area = trial.values
        preset = next((name for name, params in presets.items() if trial.params == params), None)
        rows.append(
            {"cycles": cycles, "area": area, "preset": preset, "on_front": area < least, "params": trial.params}
        )
        least = min(least, area)
    return rows


def _table(rows: list[dict[str, Any]]) -> Any:
    from phantom_jax.tables import new_table

    names = list(dict.fromkeys(name for row in rows for name in row["params"]))
    table = new_table(
        "Meshes that none beats in both cycles and area (*), and the presets",
        "Cycles: exact, per image. Area: to first order, in full adders (experiments.explore.area).",
        ("", "preset", *(name.removeprefix("arch.") for name in names)),
        ("cycles", "area"),
    )
    for row in rows:
        if row["on_front"] or row["preset"]:
            params = [str(row["params"].get(name, "")).lower() for name in names]
            cells = ("*" * row["on_front"], row["preset"] or "", *params)
            table.add_row(*cells, f"{row['cycles']:,.0f}", f"{row['area']:,.0f}")
    return table


def _figure(rows: list[dict[str, Any]]) -> Any:
    """Returns cycles over area: all meshes, the front as a line, presets by name."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([row["area"] for row in rows], [row["cycles"] for row in rows], ".", color="#948e77", label="meshes")
    front = sorted((row["area"], row["cycles"]) for row in rows if row["on_front"])
    axes.plot(*zip(*front, strict=True), "o-", color="#00224e", label="front", drawstyle="steps-post")
    for row in rows:
        if row["preset"]:
            axes.plot(row["area"], row["cycles"], "D", color="#8c2d04")
            axes.annotate(row["preset"], (row["area"], row["cycles"]), (6, 4), textcoords="offset points")
    axes.set(xlabel="area (full adders, first order)", ylabel="exact cycles per image", xscale="log", yscale="log")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    return figure
