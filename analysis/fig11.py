"""Xu et al. (2024), Fig. 11: surfaces of two eigenvectors.

python -m mining experiment=paper/fig11 && python -m analysis.fig11
"""

from analysis.panels import draw_experiment
from analysis.records import run_script


def main() -> None:
    """Draw a panel for every run."""
    draw_experiment("paper/fig11", __doc__)


if __name__ == "__main__":
    run_script(main)
