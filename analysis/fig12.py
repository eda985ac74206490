"""Xu et al. (2024), Fig. 12: surfaces of two different directions.

python -m mining experiment=paper/fig12 && python -m analysis.fig12
"""

from analysis.panels import draw_experiment
from analysis.records import run_script


def main() -> None:
    """Draw a panel for every run."""
    draw_experiment("paper/fig12", __doc__)


if __name__ == "__main__":
    run_script(main)
