"""Compute eigenvectors of the Hessian as directions."""

from pathlib import Path

from matplotlib.figure import Figure

from mining import InputError
from mining.directions.storage import read_directions, save_directions
from mining.pipelines.building import Config
from mining.pipelines.setting import build_setting, describe_point
from mining.pipelines.sources import ConfiguredCheckpoints, build_source
from mining.plotting import draw_eigenvalues, save_figure
from mining.storage.runs import Run


def run(config: Config, run: Run) -> None:
    """Compute ``num_directions`` eigenvectors into ``run``."""
    setting = build_setting(config)
    landscape = setting.landscape
    source = build_source(config, "direction")
    if source.kept_by != "eigenvectors":
        raise InputError(
            f"pipeline=eigenvectors: {type(source).__name__} gives none. Take "
            "direction=eigenvectors."
        )
    source = source.bind(ConfiguredCheckpoints(config, "direction"))
    directions = source.directions(landscape, config["num_directions"], generator=setting.generator)
    save_directions(run.directory / "directions.pt", directions, landscape)
    draw(run.directory, config)
    run.finish(
        {
            "directions": [direction.source for direction in directions],
            "metadata": [direction.record() for direction in directions],
            **setting.record(),
        },
        device=str(landscape.device),
    )


def draw(directory: Path, config: Config) -> None:
    """Draw the eigenvalues."""
    content = read_directions(directory / "directions.pt")
    picture = Figure(figsize=(5.6, 4), layout="constrained")
    draw_eigenvalues(
        picture.add_subplot(),
        content["sources"],
        [metadata["eigenvalue"] for metadata in content["metadata"]],
        [metadata["residual"] for metadata in content["metadata"]],
    )
    title = f"{directory.parent.name}, Hessian, {describe_point(config)}"
    picture.suptitle(title, fontsize=9)
    save_figure(picture, directory / "eigenvalues.png")
