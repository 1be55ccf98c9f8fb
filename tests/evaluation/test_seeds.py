"""Means over seeds with Student's intervals, of numbers and of HANS."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pyneuro.data import Pair
from pyneuro.errors import InputError
from pyneuro.evaluation import HANS_CELLS, Hans, hans, hans_over_seeds, over_seeds

PAIRS = [
    Pair(f"{h}-{g}-{i}", "The judge ran.", "A judge ran.", g, {"heuristic": h, "subcase": f"{h[0]}{g[0]}{i % 2}"})
    for h, g in HANS_CELLS
    for i in range(4)
]


def run(seed: int) -> Hans:
    drawn = np.random.default_rng(seed).choice(["entailment", "neutral"], len(PAIRS))
    return hans(drawn, PAIRS)


def test_the_interval_is_students() -> None:
    values = np.array([0.61, 0.58, 0.66, 0.59, 0.64])
    found = over_seeds(values, ci=0.9)
    low, high = stats.t.interval(0.9, 4, loc=values.mean(), scale=stats.sem(values))
    assert (found.mean, found.sd, found.n) == (pytest.approx(values.mean()), pytest.approx(values.std(ddof=1)), 5)
    assert (found.ci_low, found.ci_high) == (pytest.approx(low), pytest.approx(high))


def test_it_covers_what_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = [
        found.ci_low <= 1 <= found.ci_high for found in (over_seeds(rng.normal(1, 2, 4), ci=0.8) for _ in range(2000))
    ]
    assert np.mean(inside) == pytest.approx(0.8, abs=0.03)


def test_one_seed_has_no_interval() -> None:
    found = over_seeds([0.6])
    assert (found.mean, found.n) == (0.6, 1)
    assert all(map(math.isnan, (found.sd, found.ci_low, found.ci_high)))
    one = hans_over_seeds([run(0)])
    assert one.accuracy.mean == run(0).accuracy and math.isnan(one.accuracy.ci_low)
    assert one.cells["ci_high"].isna().all() and one.cells["mean"].equals(run(0).cells["accuracy"].rename("mean"))


def test_cells_and_subcases_are_each_summed_up_over_seeds() -> None:
    runs = [run(seed) for seed in range(5)]
    found = hans_over_seeds(runs)
    assert found.seeds == 5 and found.merge == "none"
    assert found.accuracy == over_seeds([r.accuracy for r in runs])
    for whole, parts in ((found.cells, [r.cells for r in runs]), (found.subcases, [r.subcases for r in runs])):
        assert len(whole) == len(parts[0]) and (whole["n"] == parts[0]["n"]).all()
        for row in range(len(whole)):
            want = over_seeds([part["accuracy"].iloc[row] for part in parts])
            got = whole.iloc[row]
            assert [got["heuristic"], got["label"]] == parts[0].iloc[row][["heuristic", "label"]].tolist()
            np.testing.assert_allclose(
                got[["mean", "sd", "ci_low", "ci_high"]].astype(float), [want.mean, want.sd, want.ci_low, want.ci_high]
            )
    assert list(found.cells.columns) == ["heuristic", "label", "mean", "sd", "ci_low", "ci_high", "n"]
    assert list(found.subcases.columns)[:3] == ["heuristic", "label", "subcase"]


def test_runs_that_cannot_be_put_together_are_refused() -> None:
    one = np.tile([0.2, 0.5, 0.3], (len(PAIRS), 1))
    labels = {"entailment": 0, "neutral": 1, "contradiction": 2}
    with pytest.raises(InputError, match="run 1 was merged by 'argmax' and run 0 by 'none'"):
        hans_over_seeds([run(0), hans(one, PAIRS, labels=labels)])
    some = [pair for i, pair in enumerate(PAIRS) if i]
    with pytest.raises(InputError, match="run 1 is of other pairs"):
        hans_over_seeds([run(0), hans(["neutral"] * len(some), some)])
    with pytest.raises(InputError, match="no runs"):
        hans_over_seeds([])


def test_bad_input_is_named() -> None:
    for values, ci, message in (
        ([], 0.95, r"values are \[0\]"),
        ([[1.0]], 0.95, r"values are \[1, 1\]"),
        ([1.0, np.nan], 0.95, "NaN"),
        ([1.0, 2.0], 95, "ci = 95"),
    ):
        with pytest.raises(InputError, match=message):
            over_seeds(values, ci)
