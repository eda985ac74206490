"""Xu et al. (2024), Fig. 10: vvv-basins mined by Algorithm 2.

python -m mining experiment=paper/fig10 && python -m analysis.fig10
"""

from analysis.panels import draw_experiment
from analysis.records import run_script


def main() -> None:
    """Draw a panel for every run."""
    draw_experiment("paper/fig10", __doc__)


if __name__ == "__main__":
    run_script(main)
