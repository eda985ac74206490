"""Pictures in a style of one's own, as wide as a column."""

import sys

import matplotlib as mpl
from command_line import QUICK
from matplotlib.image import imread

from mining.app.command_line import main


def test_a_finished_run_is_redrawn_in_a_style_and_as_wide_as_a_column(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.mplstyle").write_text("axes.facecolor: ff0000\nfigure.facecolor: 00ff00\n")
    before = dict(mpl.rcParams)

    def draw(*arguments):
        monkeypatch.setattr(sys, "argv", ["mining", *QUICK, "grid.num=3", *arguments])
        main()
        directory = capsys.readouterr().out.splitlines()[-1]
        return imread(tmp_path / directory / "curves.png")

    plain = draw()
    assert not (plain[..., 1] > plain[..., 0] + 0.9).any()
    styled = draw("picture.style=own.mplstyle", "picture.width=one_column", "picture.dpi=100")
    assert styled.shape[1] == 333
    assert tuple(styled[0, 0, :3]) == (0, 1, 0)
    assert (styled[..., :3] == (1, 0, 0)).all(-1).mean() > 0.3
    assert draw("picture.style=paper", "picture.width=two_columns").shape[1] == round(6.9 * 150)
    assert dict(mpl.rcParams) == before
