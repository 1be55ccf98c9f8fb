"""Figures are drawn for every kind of result, ordinary or degenerate, and are real images."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from pyneuro.effects import Moments, Terms
from pyneuro.errors import InputError
from pyneuro.results import Result, save_figures
from pyneuro.results.figures import _top_rows, top_share_means
from pyneuro.sites import ModelShape, NeuronSet

image = pytest.importorskip("matplotlib.image", reason="matplotlib is not installed")

SHAPE = ModelShape(layers=2, hidden=20, heads=2, intermediate=40)
ALL = ["nie_by_layer.png", "nie_sorted.png", "nie_top.png", "nie_treatments.png"]


def fed(effects: np.ndarray) -> Moments:
    """Moments of effects [samples, N]."""
    moments = Moments.zeros(effects.shape[1])
    for sample, effect in enumerate(effects):
        moments.update(Terms(effect, np.log1p(effect), effect, 1.0), None, sample)
    return moments


def result_of(*scales: float, samples: int = 5, sites: object = None, n: int = SHAPE.n_neurons) -> Result:
    rng = np.random.default_rng(0)
    effects = 1e-3 * rng.standard_normal(n) + 1e-4 * rng.standard_normal((samples, n))
    treatments = {name: fed(scale * effects) for name, scale in zip(("HOL", "LOL", "ALL"), scales, strict=False)}
    return Result.from_moments(sites or NeuronSet.all(SHAPE), treatments, None, {})  # type: ignore[arg-type]


def drawn(result: Result, folder: Path) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = save_figures(result, folder)
    for path in paths:
        pixels = image.imread(path)
        assert pixels.shape[0] > 200
        assert pixels.shape[1] > 400
        assert pixels[..., :3].std() > 0.01
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in paths)
    return [path.name for path in paths]


def test_two_treatments_give_all_four(tmp_path: Path) -> None:
    assert drawn(result_of(1, -0.5), tmp_path / "figures") == ALL


def test_one_treatment_has_no_scatter_and_three_fit_too(tmp_path: Path) -> None:
    assert drawn(result_of(1), tmp_path / "one") == ALL[:3]
    assert drawn(result_of(1, 0.5, 2), tmp_path / "three") == ALL


def test_sets_have_no_heat_map(tmp_path: Path) -> None:
    sets = {f"half {i}": NeuronSet(SHAPE, [i]) for i in range(6)}
    assert drawn(result_of(1, -0.5, sites=sets, n=6), tmp_path) == ALL[1:]


@pytest.mark.parametrize(("scales", "samples"), [((0, 0), 3), ((1, 0), 3), ((1, 1), 1), ((1, 1), 0)])
def test_degenerate_results_are_drawn_without_a_warning(
    scales: tuple[float, ...], samples: int, tmp_path: Path
) -> None:
    assert drawn(result_of(*scales, samples=samples), tmp_path) == ALL


@pytest.mark.parametrize(("low", "high"), [(-np.inf, np.inf), (np.nan, np.nan)])
def test_an_interval_that_is_not_known_is_drawn_as_a_line_across(low: float, high: float, tmp_path: Path) -> None:
    table = fed(1e-3 * np.random.default_rng(0).standard_normal((5, 6))).summary()
    table["ci_low"][:3], table["ci_high"][:3] = low, high
    result = Result.from_columns(NeuronSet(SHAPE, range(6)), {"HOL": table}, None, {})
    axes = _top_rows(result).axes[0]
    assert sum(line.get_linestyle() == ":" for line in axes.lines) == 3
    assert max(map(abs, axes.get_xlim())) < 0.1
    assert drawn(result, tmp_path) == ALL[:3]


def test_a_single_neuron_is_drawn(tmp_path: Path) -> None:
    assert drawn(result_of(1, 2, sites=NeuronSet.parse("L1.I.3", SHAPE), n=1), tmp_path) == ALL


def test_a_cell_is_the_mean_of_its_top_twentieth() -> None:
    effects = np.arange(1.0, 1.0 + SHAPE.n_neurons)[None] * np.where(np.arange(SHAPE.n_neurons) % 2, 1, -1)
    result = Result.from_moments(NeuronSet.all(SHAPE), {"HOL": fed(np.abs(effects) * 1e-3)}, None, {})
    cells = top_share_means(result, "HOL")
    assert cells.columns.tolist() == ["Q", "K", "V", "AO", "I", "O"]
    assert cells.loc[0, "Q"] == pytest.approx(0.020)  # one of 20
    assert cells.loc[0, "I"] == pytest.approx((0.119 + 0.120) / 2)  # two of 40
    assert np.isnan(top_share_means(result_of(1, sites=NeuronSet.parse("L1.I.*", SHAPE), n=40), "HOL").loc[0, "I"])


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install 'pyneuro\[figures\]'"):
        save_figures(result_of(1), tmp_path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        save_figures(result_of(1), tmp_path / "file")
