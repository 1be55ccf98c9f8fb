"""What the documentation shows works as shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pyneuro.cli import _parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of a language ("" for none given)."""
    parts = re.split(r"^```(\w*)\n", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    fences, texts = parts[1::2], parts[2::2]
    return [text for opening, text in list(zip(fences, texts, strict=True))[::2] if opening == language]


def test_the_python_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (example,) = blocks(ROOT / "README.md", "python")
    example = example.replace('"L5.*.*"', '"L5.*.0", "L5.*.1"')  # the same, of fewer neurons
    exec(compile(example, "README.md", "exec"), {})
    assert (tmp_path / "runs/layer5/neurons.parquet").exists()
    assert len(list((tmp_path / "runs/layer5/figures").glob("*.png"))) == 4


def test_the_python_examples_about_mitigation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    examples = "\n".join(blocks(ROOT / "docs/mitigation.md", "python"))
    exec(compile(examples, "mitigation.md", "exec"), {})
    assert (tmp_path / "weakening.json").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_shown_can_be_read(page: Path) -> None:
    shown = re.findall(r"^pyneuro .*$", "\n".join(blocks(page, "")), re.MULTILINE)
    for line in shown:
        words = shlex.split(line.replace(" ... ", " "), comments=True)[1:]
        _parser().parse_args(words)
    assert shown or page.name != "README.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


def test_code_refers_to_sections_that_are_there() -> None:
    titles = {line.lstrip("# ").lower() for line in (ROOT / "docs/method.md").read_text(encoding="utf-8").splitlines()}
    referred = {
        title.lower()
        for path in (ROOT / "pyneuro").rglob("*.py")
        for title in re.findall(r'docs/method\.md, "([^"]+)"', path.read_text(encoding="utf-8"))
    }
    assert "difference forms" in referred
    assert referred <= titles
