"""The partial state of a search survives crashes, refuses other settings and loses one group at most."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyneuro.effects import Moments
from pyneuro.errors import InputError, ResumeError
from pyneuro.results import TileStore

SETTINGS = {"model": "abc", "data": {"digest": "123", "n": 2000}, "layers": [0, 1]}


def arrays(value: float = 1.0) -> dict[str, np.ndarray]:
    return {"mean": np.full((3, 4), value), "count": np.arange(4), "classes": np.array(["entailment", "neutral"])}


def opened(folder: Path, resume: bool = False, **changes: object) -> TileStore:
    return TileStore(folder, {**SETTINGS, **changes}, resume)


def test_what_is_written_is_read_back_after_reopening(tmp_path: Path) -> None:
    opened(tmp_path).write("L3.I", 7, arrays())
    store = opened(tmp_path, resume=True)
    done, back = store.read("L3.I")  # type: ignore[misc]
    assert done == 7
    assert set(back) == set(arrays())
    for name, values in arrays().items():
        np.testing.assert_array_equal(back[name], values)
        assert back[name].dtype == values.dtype
    assert store.groups() == ["L3.I"]
    assert store.read("L3.O") is None


def test_groups_are_independent_and_the_last_write_holds(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.write("L0.Q", 1, arrays(1))
    store.write("L0.K", 5, arrays(2))
    store.write("L0.Q", 2, arrays(3))
    assert store.read("L0.Q")[0] == 2  # type: ignore[index]
    assert store.read("L0.Q")[1]["mean"][0, 0] == 3  # type: ignore[index]
    assert store.read("L0.K")[0] == 5  # type: ignore[index]


def test_moments_make_the_round_trip(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.write("L0.V", 0, Moments.zeros(5).to_arrays())
    assert len(Moments.from_arrays(store.read("L0.V")[1])) == 5  # type: ignore[index]


def test_resuming_an_empty_folder_just_begins(tmp_path: Path) -> None:
    opened(tmp_path / "new", resume=True)
    opened(tmp_path / "new", resume=True, model="other")  # nothing was computed yet, so nothing can be mixed up


def test_partial_results_are_not_overwritten_by_accident(tmp_path: Path) -> None:
    opened(tmp_path).write("L0.Q", 1, arrays())
    with pytest.raises(
        InputError, match=r"partial results \(tiles: 1\); pass resume=True \(--resume\).*another folder"
    ):
        opened(tmp_path)


def test_other_settings_are_refused_and_listed(tmp_path: Path) -> None:
    opened(tmp_path).write("L0.Q", 1, arrays())
    with pytest.raises(ResumeError) as caught:
        opened(tmp_path, resume=True, data={"digest": "456", "n": 2000}, layers=[0], seed=0)
    message = str(caught.value)
    assert 'data.digest: "123" in the folder, "456" now' in message
    assert "layers: [0, 1] in the folder, [0] now" in message
    assert "seed: (absent) in the folder, 0 now" in message
    assert "model" not in message
    assert "data.n" not in message
    assert opened(tmp_path, resume=True).read("L0.Q") is not None


def test_a_setting_that_is_gone_and_a_very_long_one_are_listed_too(tmp_path: Path) -> None:
    opened(tmp_path, ids="x" * 5000, extra=True).write("L0.Q", 1, arrays())
    with pytest.raises(ResumeError, match=r"extra: true in the folder, \(absent\) now") as caught:
        opened(tmp_path, resume=True, ids="y" * 5000)
    assert len(str(caught.value)) < 700


def test_settings_compare_as_json_does(tmp_path: Path) -> None:
    opened(tmp_path, layers=(0, 1), low=20).write("L0.Q", 1, arrays())
    opened(tmp_path, resume=True, low=20.0)
    with pytest.raises(ResumeError, match="low: 20 in the folder, true now"):
        opened(tmp_path, resume=True, low=True)


def test_lost_or_broken_settings_stop_a_resume(tmp_path: Path) -> None:
    opened(tmp_path).write("L0.Q", 1, arrays())
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(InputError, match=r"settings.json' is not valid JSON.*delete it to start again"):
        opened(tmp_path, resume=True)
    (tmp_path / "settings.json").unlink()
    with pytest.raises(InputError, match=r"settings.json' is missing"):
        opened(tmp_path, resume=True)


def damaged(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    "spoil",
    [
        damaged(lambda b: b""),
        damaged(lambda b: b[: len(b) // 2]),
        damaged(lambda b: b[:-1]),
        damaged(lambda b: b"not a zip at all"),
        damaged(lambda b: b.replace(np.float64(1.0).tobytes(), np.float64(2.0).tobytes(), 1)),
        lambda path: np.savez(path, mean=np.zeros(3)),
        lambda path: np.savez(path, __meta__=np.array("{}")),
        lambda path: path.write_bytes((path.parent / "L0.K.npz").read_bytes()),
    ],
    ids=["empty", "half", "one byte short", "text", "a value changed", "no meta", "empty meta", "of another group"],
)
def test_a_damaged_group_starts_again_and_the_others_go_on(spoil: Callable[[Path], object], tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.write("L0.Q", 3, arrays())
    store.write("L0.K", 4, arrays())
    spoil(tmp_path / "tiles" / "L0.Q.npz")
    store = opened(tmp_path, resume=True)
    with pytest.warns(UserWarning, match=r"group 'L0.Q' are damaged .*L0.Q.npz.corrupt.*starts again"):
        assert store.read("L0.Q") is None
    assert (tmp_path / "tiles" / "L0.Q.npz.corrupt").exists()
    assert store.groups() == ["L0.K"]
    assert store.read("L0.K")[0] == 4  # type: ignore[index]
    store.write("L0.Q", 1, arrays())
    assert store.read("L0.Q")[0] == 1  # type: ignore[index]


def test_no_flipped_byte_is_ever_read_as_data(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.write("L0.Q", 3, arrays())
    path = tmp_path / "tiles" / "L0.Q.npz"
    content = path.read_bytes()
    for at in range(0, len(content), 11):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x5A]) + content[at + 1 :])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = store.read("L0.Q")
        if got is not None:  # a byte of the archive that carries no data
            assert got[0] == 3
            np.testing.assert_array_equal(got[1]["mean"], arrays()["mean"])


def test_leftovers_of_a_dead_process_are_discarded_and_those_of_a_live_one_kept(tmp_path: Path) -> None:
    opened(tmp_path).write("L0.Q", 3, arrays())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for pid in (dead.pid, os.getpid()):
        (tmp_path / "tiles" / f".L0.K.npz.{pid}-0011.partial").write_bytes(b"half")
    store = opened(tmp_path, resume=True)
    assert [path.name for path in (tmp_path / "tiles").glob(".*")] == [f".L0.K.npz.{os.getpid()}-0011.partial"]
    assert store.groups() == ["L0.Q"]


def test_a_process_killed_while_writing_leaves_a_whole_tile(tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np\n"
        "from pyneuro.results.store import TileStore\n"
        "store = TileStore(sys.argv[1], {}, False)\n"
        "done = 0\n"
        "while True:\n"
        "    done += 1\n"
        "    store.write('L0.I', done, {'sum': np.full(200_000, done)})\n"
    )
    root = Path(__file__).resolve().parents[2]
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(root)}
    )
    tile = tmp_path / "tiles" / "L0.I.npz"
    deadline = time.monotonic() + 30
    while not tile.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    done, back = TileStore(tmp_path, {}, True).read("L0.I")  # type: ignore[misc]
    assert done >= 1
    assert (back["sum"] == done).all()
    assert not list((tmp_path / "tiles").glob(".*"))


def test_a_write_that_fails_keeps_the_state_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path)
    store.write("L0.Q", 3, arrays())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InputError, match=r"L0.Q.npz' cannot be written .No space left on device"):
        store.write("L0.Q", 4, arrays(9))
    monkeypatch.undo()
    assert store.read("L0.Q")[0] == 3  # type: ignore[index]
    assert not list((tmp_path / "tiles").glob(".*"))


def test_clearing_leaves_what_belongs_to_others(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.write("L0.Q", 3, arrays())
    (tmp_path / "tiles" / "L0.K.npz.corrupt").write_bytes(b"")
    (tmp_path / "manifest.json").write_text("{}")
    store.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    opened(tmp_path)


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda store: store.write("../evil", 1, {}), "'../evil' cannot name a file"),
        (lambda store: store.read("L0/Q"), "'L0/Q' cannot name a file"),
        (lambda store: store.write("", 1, {}), "'' cannot name a file"),
        (lambda store: store.write("L0.Q", -1, {}), "done = -1"),
        (lambda store: store.write("L0.Q", 1, {"x": np.array([object()])}), "array 'x' of dtype object"),
        (lambda store: store.write("L0.Q", 1, {"__meta__": np.zeros(1)}), "array '__meta__'"),
        (
            lambda store: TileStore(store.folder, {"seed": 3 + 1j}, True),
            "setting 'seed' = .*cannot be stored as JSON",
        ),
        (lambda store: TileStore(store.folder / "settings.json" / "x", {}, False), "cannot be written"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_mend(
    use: Callable[[TileStore], object], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        use(opened(tmp_path))
