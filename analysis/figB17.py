"""Xu et al. (2024), Fig. B.17: Gaussian curves under several normalizations and widths.

python -m mining experiment=paper/figB17 && python -m analysis.figB17
"""

from analysis.panels import draw_experiment
from analysis.records import run_script


def main() -> None:
    """Draw a panel for every run."""
    draw_experiment("paper/figB17", __doc__, columns=3)


if __name__ == "__main__":
    run_script(main)
