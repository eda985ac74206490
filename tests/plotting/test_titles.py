"""What pictures call themselves: two that differ do not look alike."""

import pytest

from mining.app.experiments import plan
from mining.directions.eigenvectors import eigenvector_names, signed_number
from mining.pipelines.building import has_batch_norm
from mining.pipelines.titles import describe_point
from mining.plotting.curvature import eigenvector_colors


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (["model=mlp"], False),
        (["model=lenet"], False),
        (["model=cnn"], False),
        (["model=cifar_resnet8"], True),
        (["model=vgg"], True),
        (["model=vgg", "model.batch_norm=false"], False),
        (["model=torchvision", "model.architecture=convnext_tiny"], False),
        (["model=custom", "model._target_=cases.AttentionNet"], False),
        (["model=custom", "model._target_=cases.BatchNormNet"], True),
    ],
)
def test_batch_norm_is_named_where_there_is_any(model, found):
    (run,) = plan(model)
    assert has_batch_norm(run.settings.model) == found
    assert ("batch norm: recalibrate" in describe_point(run.settings.as_read())) == found


def test_runs_of_a_sweep_have_titles_of_their_own():
    runs = plan(["normalization=model,filter", "seed=0,1"])
    titles = [describe_point(run.settings.as_read()) for run in runs]
    assert len(set(titles)) == len(runs) == 4
    (run,) = plan(["split=both"])
    assert describe_point(run.settings.as_read()) == "E=200, train loss"
    assert (
        describe_point(run.settings.as_read(), "dashed: test") == "E=200, train loss (dashed: test)"
    )
    (run,) = plan(["pipeline=spectrum", "normalization=filter"])  # which looks along no direction
    assert "normalization" not in describe_point(run.settings.as_read())


def test_only_positive_eigenvalues_make_pe_and_negative_ones_ne():
    values = [5.0, 1e-9, -2.0, -3.0, -1e-9, 4.0]
    names = eigenvector_names(values, 3, 1e-6)
    assert names == ["P.E.1", "largest 2", "largest 3", "N.E.1", "smallest 2", "smallest 3"]
    assert list(map(signed_number, [*names, "N.E.10"])) == [1, 0, 0, -1, 0, 0, -10]
    assert eigenvector_colors(names) == ["tab:blue", "0.5", "0.5", "tab:red", "0.5", "0.5"]
