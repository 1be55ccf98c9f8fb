"""Hugging Face datasets: saved folders for real, the hub through a stand-in for ``load_dataset``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyneuro.data.pairs import Pair
from pyneuro.data.read import read_pairs
from pyneuro.errors import InputError

datasets: Any = pytest.importorskip("datasets")

Hub = Callable[..., list[tuple[str, str | None]]]


def dataset(label_names: list[str] | None = None, labels: tuple[Any, ...] = (0, 1, 2, -1), premise: str = "p") -> Any:
    label = datasets.Value("int64") if label_names is None else datasets.ClassLabel(names=label_names)
    features = datasets.Features(premise=datasets.Value("string"), hypothesis=datasets.Value("string"), label=label)
    rows = {"premise": [premise] * len(labels), "hypothesis": [f"h{at}" for at in range(len(labels))], "label": labels}
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Let the hub answer with these splits, or fail with this error; returns the list of what was asked for."""

    def answer(error: Exception | None = None, **splits: Any) -> list[tuple[str, str | None]]:
        asked: list[tuple[str, str | None]] = []

        def load_dataset(name: str, config: str | None = None) -> Any:
            asked.append((name, config))
            if error is not None:
                raise error
            return datasets.DatasetDict(splits)

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return answer


def test_a_dataset_is_read_by_its_id(hub: Hub) -> None:
    asked = hub(validation=dataset())
    pairs = read_pairs("owner/corpus")
    assert asked == [("owner/corpus", None)]
    assert pairs[1] == Pair("corpus-validation-1", "p", "h1", "neutral")
    assert pairs.labels == ("entailment", "neutral", "contradiction") and pairs.dropped == {"label -1": 1}
    assert pairs.source == "owner/corpus[validation]"


@pytest.mark.parametrize("name", ["snli", "nyu-mll/multi_nli", "owner/name.v2", "owner.org/name"])
def test_ids_go_to_the_hub(hub: Hub, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = hub(validation=dataset())
    assert len(read_pairs(name)) == 3
    assert asked == [(name, None)]


def test_a_configuration_follows_a_colon(hub: Hub) -> None:
    asked = hub(validation=dataset())
    assert read_pairs("nyu-mll/glue:mnli").ids[0] == "mnli-validation-0"
    assert asked == [("nyu-mll/glue", "mnli")]


def test_class_names_say_what_codes_mean(hub: Hub) -> None:
    hub(validation=dataset(["entailment", "not_entailment"], (1, 0)))
    assert read_pairs("owner/hans").labels == ("non-entailment", "entailment")
    hub(validation=dataset(["contradiction", "entailment", "neutral"], (0, 1, 2)))
    assert read_pairs("owner/other").labels == ("contradiction", "entailment", "neutral")


def test_a_class_that_is_not_nli_is_named(hub: Hub) -> None:
    hub(validation=dataset(["negative", "positive"], (0,)))
    with pytest.raises(
        InputError, match=r"owner/sst\[validation\]:row 1: unknown label 0 .*codes 0 negative, 1 positive"
    ):
        read_pairs("owner/sst")


@pytest.mark.parametrize(
    ("splits", "chosen"),
    [
        (("train", "validation_mismatched", "validation_matched", "validation"), "validation_matched"),
        (("train", "validation", "test"), "validation"),
        (("train",), "train"),
    ],
)
def test_the_default_split(hub: Hub, splits: tuple[str, ...], chosen: str) -> None:
    hub(**{split: dataset(premise=split) for split in splits})
    assert read_pairs("owner/corpus")[0].premise == chosen


def test_a_split_can_be_asked_for(hub: Hub) -> None:
    hub(validation=dataset(), train=dataset(premise="of train"))
    assert read_pairs("owner/corpus", split="train")[0].premise == "of train"


def test_a_missing_or_unclear_split_lists_the_splits(hub: Hub) -> None:
    hub(train=dataset(), dev=dataset())
    with pytest.raises(InputError, match="no split 'validation'; its splits are train, dev"):
        read_pairs("owner/corpus", split="validation")
    with pytest.raises(InputError, match=r"has the splits train, dev; choose one with split="):
        read_pairs("owner/corpus")


def test_limit_and_columns_work_on_the_hub_too(hub: Hub) -> None:
    hub(validation=dataset().rename_columns({"premise": "a", "hypothesis": "b"}))
    pairs = read_pairs("owner/corpus", columns={"premise": "a", "hypothesis": "b", "id": "b"}, limit=2)
    assert pairs.ids == ("h0", "h1")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("Couldn't reach it"), "no file 'owner/corpus', and the .* hub cannot be reached .* network"),
        (type("ConnectTimeout", (Exception,), {})("slow"), "cannot be reached"),
        (datasets.exceptions.DatasetNotFoundError("gated"), "no dataset 'owner/corpus' on the Hugging Face hub"),
        (
            ValueError("Config name is missing. Pick one of ['mnli']"),
            r"write it as 'owner/corpus:config' \(.*\['mnli'\]",
        ),
        (RuntimeError("scripts are no longer supported"), "cannot be loaded: RuntimeError: scripts are no longer"),
    ],
)
def test_what_goes_wrong_at_the_hub_is_told_with_a_mend(hub: Hub, error: Exception, message: str) -> None:
    hub(error)
    with pytest.raises(InputError, match=message) as caught:
        read_pairs("owner/corpus")
    assert caught.value.__cause__ is error


def test_names_of_files_are_never_looked_up(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = hub(validation=dataset())
    (tmp_path / "here").mkdir()
    suffixed = ("dev.jsonl", "data/dev.csv.gz", "dev.gz", "dev.xyz", "dev.v2:config")
    for name in (*suffixed, "./corpus", "/no/such", "~/no-such", "a b", "a/b/c", "here/corpus", "here/corpus:config"):
        with pytest.raises(InputError, match="no file"):
            read_pairs(name)
    with pytest.raises(InputError, match="no file"):
        read_pairs(Path("owner/corpus"))
    assert not asked


def test_an_existing_file_wins_over_an_id(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub(validation=dataset())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus").write_text("x")
    with pytest.raises(InputError, match="the suffix does not say"):
        read_pairs("corpus")
    assert not asked


def test_without_datasets_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"'owner/corpus' is no file.*pip install datasets"):
        read_pairs("owner/corpus")


def test_saved_folders_are_read(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": dataset(), "validation": dataset(labels=(2,))}).save_to_disk(str(tmp_path / "both"))
    assert read_pairs(tmp_path / "both").labels == ("contradiction",)
    assert read_pairs(tmp_path / "both", split="train").ids[0] == "both-train-0"

    dataset().save_to_disk(str(tmp_path / "one"))
    assert read_pairs(tmp_path / "one").ids[0] == "one-0"
    with pytest.raises(InputError, match="holds one split, unnamed, not 'train'; leave split out"):
        read_pairs(tmp_path / "one", split="train")


def test_a_damaged_saved_folder_is_named(tmp_path: Path) -> None:
    dataset().save_to_disk(str(tmp_path / "one"))
    next((tmp_path / "one").glob("*.arrow")).unlink()
    with pytest.raises(InputError, match="one: the saved dataset cannot be read"):
        read_pairs(tmp_path / "one")


def test_the_stand_in_matches_the_real_signature() -> None:
    # The stand-in is called as load_dataset(name, config): these must be its first two parameters.
    assert list(inspect.signature(datasets.load_dataset).parameters)[:2] == ["path", "name"]
