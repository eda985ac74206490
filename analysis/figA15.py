"""Xu et al. (2024), Fig. A.15: Gaussian curves of several checkpoints.

python -m mining experiment=paper/figA15 && python -m analysis.figA15
"""

from analysis.panels import draw_experiment
from analysis.records import run_script


def main() -> None:
    """Draw a panel for every run."""
    draw_experiment("paper/figA15", __doc__)


if __name__ == "__main__":
    run_script(main)
