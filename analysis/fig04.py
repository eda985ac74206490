"""Xu et al. (2024), Fig. 4: to the negative gradient and to the last checkpoint.

python -m mining experiment=paper/fig04 && python -m analysis.fig04
"""

from analysis.panels import draw_experiment
from analysis.records import run_script


def main() -> None:
    """Draw a panel for every run."""
    draw_experiment("paper/fig04", __doc__)


if __name__ == "__main__":
    run_script(main)
