"""The main job: counts the exact cycles of a workload, prints them per layer and writes results and figures.

`python -m experiments.simulate workload=vgg16 arch=phantom_cv`; the last line printed is the output directory.
"""

import hydra
from omegaconf import DictConfig

from conf import schema
from experiments import command


@hydra.main(version_base="1.3", config_path=command.CONFIG_PATH, config_name="simulate")
@command.job
def main(config: DictConfig) -> None:
    """Runs one job."""
    # JAX takes seconds to import, which --help and tab completion need not wait for.
    from rich.console import Console
    from rich.progress import Progress

    from experiments import provenance
    from experiments.workload import load_workload
    from phantom_jax import Phantom2D, simulate
    from phantom_jax.checks import one_of

    arch = Phantom2D(**command.options(config, "arch"))
    workload = load_workload(config)
    if config.figures.layer is not None:
        one_of("figures.layer", config.figures.layer, tuple(workload.names))

    bar = Progress(console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False)
    with bar:
        report = simulate(bar.track(workload, description="Counting cycles"), arch)

    console, directory = Console(), command.output_directory()
    results = {
        "schema_version": 1,
        "workload": workload.provenance(),
        "seed": workload.seed,
        **provenance.collect(),
        **report.to_dict(),
    }
    command.write_csv(directory / "results.csv", report.rows())
    command.write_json(directory / "results.json", results)

    command.tell(workload.notes)
    report.print(console)
    if config.figures.write:
        from experiments.figures import write_figures

        command.tell(write_figures(directory, report, workload, arch, config.figures.layer))
    print(directory, flush=True)


if __name__ == "__main__":
    schema.register()
    command.run(main)
