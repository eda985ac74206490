"""Xu et al. (2024), Fig. 3: Gaussian directions around networks without skip connections.

python -m mining experiment=paper/fig03 && python -m analysis.fig03
"""

from analysis.panels import draw_experiment
from analysis.records import run_script


def main() -> None:
    """Draw a panel for every run."""
    draw_experiment("paper/fig03", __doc__)


if __name__ == "__main__":
    run_script(main)
