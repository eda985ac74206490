"""Xu et al. (2024), Fig. 8: along eigenvectors of the Hessian.

python -m mining experiment=paper/fig08 && python -m analysis.fig08
"""

from analysis.panels import draw_experiment
from analysis.records import run_script


def main() -> None:
    """Draw a panel for every run."""
    draw_experiment("paper/fig08", __doc__)


if __name__ == "__main__":
    run_script(main)
