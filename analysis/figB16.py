"""Xu et al. (2024), Fig. B.16: Gaussian curves in windows of several widths.

python -m mining experiment=paper/figB16 && python -m analysis.figB16
"""

from analysis.panels import draw_experiment
from analysis.records import run_script


def main() -> None:
    """Draw a panel for every run."""
    draw_experiment("paper/figB16", __doc__)


if __name__ == "__main__":
    run_script(main)
