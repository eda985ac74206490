"""Xu et al. (2024), Fig. 7: to an independently trained checkpoint.

python -m mining experiment=paper/fig07 && python -m analysis.fig07
"""

from analysis.panels import draw_experiment
from analysis.records import run_script


def main() -> None:
    """Draw a panel for every run."""
    draw_experiment("paper/fig07", __doc__)


if __name__ == "__main__":
    run_script(main)
