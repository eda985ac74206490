"""Xu et al. (2024), Fig. 2: curves and surfaces along Gaussian directions.

python -m mining experiment=paper/fig02 && python -m analysis.fig02
"""

from analysis.panels import draw_experiment
from analysis.records import run_script


def main() -> None:
    """Draw a panel for every run."""
    draw_experiment("paper/fig02", __doc__)


if __name__ == "__main__":
    run_script(main)
