"""How complex a curve can be: valleys drawn by multi-point optimization.

python -m mining experiment=multipoint && python -m analysis.multipoint
"""

from analysis.panels import draw_experiment
from analysis.records import run_script


def main() -> None:
    """Draw a panel for every number of valleys."""
    draw_experiment("multipoint", __doc__)


if __name__ == "__main__":
    run_script(main)
