"""The result of a search: one row a neuron (or named set) and treatment, and the manifest of how it came about."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pyneuro.effects import Moments
from pyneuro.errors import InputError
from pyneuro.results.environment import environment
from pyneuro.results.files import discard_leftovers, read_json, sha256, to_json, writable_folder, write_atomic
from pyneuro.results.reliability import reliability
from pyneuro.results.significance import ALPHA, significance
from pyneuro.results.store import check_same_settings
from pyneuro.results.table import SITE_COLUMNS, Sites, describe, from_ranges, tabulate
from pyneuro.sites import ModelShape, NeuronSet

FORMAT = 1
NEURONS_FILE = "neurons.parquet"
CONTRAST_FILE = "contrast.parquet"
MANIFEST_FILE = "manifest.json"
#: Accepted by ``Result.top`` in place of a treatment.
CONTRAST = "contrast"
#: Columns that every table has: what rankings, figures and the report read.
REQUIRED = ("nie", "se", "ci_low", "ci_high", "log_nie", "diff", "ratio_of_means", "largest_share", "n")

Columns = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Result:
    """Effects of neurons, or of sets of neurons, under one or more treatments. Made by a search or ``load_result``.

    Attributes
    ----------
    manifest : dict
        Settings, versions, machine and data digests; ``manifest["result"]`` holds the kind (``neurons`` or ``sets``),
        the model's shape, the treatments and the coverage of the intervals.
    """

    manifest: dict[str, Any]
    _frame: pd.DataFrame
    _contrast: pd.DataFrame | None

    @classmethod
    def from_moments(
        cls,
        sites: Sites,
        treatments: Mapping[str, Moments],
        contrast: Moments | None,
        manifest: Mapping[str, Any],
        ci: float = 0.95,
    ) -> Result:
        """Tabulate the moments of a search.

        Parameters
        ----------
        sites : NeuronSet, or NeuronSets by name (a dict or pairs)
            One row a neuron in flat order, or one row a named set patched jointly.
        treatments : dict of Moments
            By treatment name, all over the same sites; the first two are what the contrast compares.
        contrast : Moments or None
            Of the paired differences first - second treatment.
        manifest : dict
            JSON-able; versions and machine are added unless given.
        ci : float
            Coverage of the intervals.

        Raises
        ------
        InputError
            No treatment, no site, moments of another length, a contrast of fewer than two treatments, repeated set
            names, a manifest that JSON cannot hold.
        """
        tables = {name: moments.summary(ci) for name, moments in treatments.items()}
        return cls.from_columns(sites, tables, None if contrast is None else contrast.summary(ci), manifest, ci)

    @classmethod
    def from_columns(
        cls,
        sites: Sites,
        tables: Mapping[str, Columns],
        contrast: Columns | None,
        manifest: Mapping[str, Any],
        ci: float = 0.95,
    ) -> Result:
        """A result of columns that are computed already.

        Parameters
        ----------
        sites : NeuronSet, or NeuronSets by name (a dict or pairs)
            One row a neuron in flat order, or one row a named set patched jointly.
        tables : dict of dicts of arrays [N]
            Columns by treatment name, the same columns for every treatment: those in ``REQUIRED`` and any others.
        contrast : dict of arrays [N] or None
            Columns of the paired differences first - second treatment.
        manifest : dict
            JSON-able; versions and machine are added unless given.
        ci : float
            Coverage of the intervals in the columns.

        Raises
        ------
        InputError
            No treatment, no site, columns that are missing, of another length or not those of the other treatments, a
            contrast of fewer than two treatments, repeated set names, a manifest that JSON cannot hold.
        """
        described, kind, rows = describe(sites)
        _check_tables(tables, contrast, len(rows))
        if not 0.0 < ci < 1.0:
            raise InputError(f"ci = {ci} is not a coverage; pass a number between 0 and 1, such as 0.95")
        if reserved := {"result", "files"} & set(manifest):
            raise InputError(f"manifest entries {sorted(reserved)} are written by the result itself; rename them")
        described |= {"format": FORMAT, "kind": kind, "treatments": list(tables), "ci": ci}
        full = {**environment(), **manifest, "result": described}
        full = json.loads(to_json(full, "manifest entry"))
        frames = [tabulate(rows, name, columns) for name, columns in tables.items()]
        paired = None
        if contrast is not None:
            first, second = list(tables)[:2]
            paired = tabulate(rows, f"{first} - {second}", contrast)
        return cls(full, pd.concat(frames, ignore_index=True), paired)

    @property
    def kind(self) -> str:
        """``"neurons"`` or ``"sets"``."""
        return str(self.manifest["result"]["kind"])

    @property
    def treatments(self) -> list[str]:
        return list(self.manifest["result"]["treatments"])

    @property
    def has_contrast(self) -> bool:
        return self._contrast is not None

    @property
    def shape(self) -> ModelShape:
        """Sizes of the model searched."""
        return ModelShape(**self.manifest["result"]["shape"])

    def sets(self) -> dict[str, NeuronSet]:
        """Members of every set, by name. Raises InputError for a result of single neurons."""
        if self.kind != "sets":
            raise InputError("this result is of single neurons, not of sets; its neurons are in frame()")
        members = self.manifest["result"]["sets"]
        return {name: NeuronSet(self.shape, from_ranges(ranges)) for name, ranges in members.items()}

    def frame(self) -> pd.DataFrame:
        """One row a site and treatment; a copy.

        Columns ``site layer module neuron treatment``, then those of ``Moments.summary``: ``nie se ci_low ci_high
        log_nie log_se diff diff_se ratio_of_means min max min_sample max_sample largest_share n``, means over two
        halves of the samples ``nie_half_1 nie_half_2`` and, by gold class, ``nie_<class> se_<class> n_<class>``; with
        a bootstrap, ``boot_se boot_low boot_high``. For sets, layer, module and neuron are missing and ``size`` counts
        the neurons.
        """
        return self._frame.copy()

    def contrast(self) -> pd.DataFrame:
        """First treatment minus second, paired per sample: the columns of ``frame`` with their own errors; a copy.

        Raises InputError when the search had a single treatment.
        """
        if self._contrast is None:
            raise InputError(f"this result has no contrast, only {self.treatments}; search with two treatments")
        return self._contrast.copy()

    def top(
        self,
        k: int = 20,
        treatment: str | None = None,
        by: str = "nie",
        absolute: bool = False,
        ascending: bool = False,
        significant: float | None = None,
    ) -> pd.DataFrame:
        """The ``k`` first rows when ranked by a column; missing values last, ties in site order.

        Parameters
        ----------
        k : int
        treatment : str, optional
            A treatment's name or ``"contrast"``; None ranks the rows of all treatments together.
        by : str
            Any numeric column.
        absolute : bool
            Rank by magnitude.
        ascending : bool
            Smallest first.
        significant : float, optional
            Rank only what is significant at this false discovery rate, see ``significance``; fewer than ``k`` rows, or
            none, may be left.

        Raises
        ------
        InputError
            ``k`` is no positive whole number, or there is no such treatment, column or rate.
        """
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
            raise InputError(f"k = {k!r}; pass a whole number, 1 or more")
        table = self._rows(treatment)
        if significant is not None:
            table = table[significance(table, significant)["significant"]]
        numeric = [c for c in table.columns if c not in SITE_COLUMNS or c in ("layer", "neuron", "size")]
        if by not in numeric:
            raise InputError(f"by = {by!r} is not a column to rank by; choose one of {', '.join(numeric)}")
        key = table[by].abs() if absolute else table[by]
        order = key.sort_values(ascending=ascending, kind="stable", na_position="last").index[:k]
        return table.loc[order].reset_index(drop=True)

    def significance(self, treatment: str | None = None, alpha: float = ALPHA) -> pd.DataFrame:
        """Which effects are not 0, over the choice of texts, at a false discovery rate.

        Parameters
        ----------
        treatment : str, optional
            A treatment's name or ``"contrast"``; None gives every treatment, each a family of tests of its own.
        alpha : float
            Expected share of false discoveries among the significant at most, between 0 and 1.

        Returns
        -------
        DataFrame
            One row a site and treatment: ``site treatment nie se n``; ``p``, two-sided, by Student's t with n - 1
            degrees of freedom (1 for an effect of exactly 0 on every sample, nan below two samples); ``q``, adjusted by
            Benjamini & Hochberg (1995) over all rows of the treatment; ``significant``, q <= alpha.
        """
        return significance(self._rows(treatment), alpha).reset_index(drop=True)

    def reliability(self, treatment: str | None = None) -> pd.DataFrame:
        """How well two halves of the samples agree (``nie_half_1``, ``nie_half_2``).

        This is the noise ceiling of a ranking: the same search on other texts would agree with it no better than its
        halves, corrected for their length, agree with each other. What is computed on the same texts shares their noise
        and may agree better.

        Parameters
        ----------
        treatment : str, optional
            A treatment's name or ``"contrast"``; None gives every treatment.

        Returns
        -------
        DataFrame
            One row a treatment and module, and one over all modules (``module`` is "all"); for sets that one alone.
            ``rows`` counts what is compared; ``pearson`` and ``spearman`` correlate the halves; ``reliability`` is
            Pearson's r corrected to the length of all samples, 2r / (1 + r) (Spearman 1910; Brown 1910), which takes
            the halves as equally long; ``recall_absolute_<p>`` and ``recall_signed_<p>`` are the share of one half's p
            per cent of largest |NIE| and of largest NIE that is among the other's. nan where there is too little to
            compare.

        Raises
        ------
        InputError
            No such treatment, or a result saved before halves were kept.
        """
        return reliability(self._rows(treatment))

    def _rows(self, treatment: str | None) -> pd.DataFrame:
        """Of one treatment, of the contrast, or (None) of all treatments."""
        if treatment == CONTRAST:
            return self.contrast()
        if treatment is None:
            return self.frame()
        if treatment not in self.treatments:
            known = [*self.treatments, CONTRAST]
            raise InputError(f"treatment {treatment!r} is not in this result; choose one of {known}")
        return self._frame[self._frame["treatment"] == treatment]

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``neurons.parquet``, ``contrast.parquet`` (with a contrast) and ``manifest.json``, each atomically.

        The manifest comes last and holds the SHA-256 of the tables, so ``load_result`` notices an interrupted save.

        Raises
        ------
        InputError
            The folder cannot be written.
        """
        path = writable_folder(folder)
        discard_leftovers(path)
        tables = {NEURONS_FILE: _to_parquet(self._frame)}
        if self._contrast is not None:
            tables[CONTRAST_FILE] = _to_parquet(self._contrast)
        files = {name: {"sha256": sha256(content), "bytes": len(content)} for name, content in tables.items()}
        manifest = to_json({**self.manifest, "files": files}, "manifest entry")
        for name, content in tables.items():
            write_atomic(path / name, content)
        write_atomic(path / MANIFEST_FILE, manifest.encode())
        if self._contrast is None:
            (path / CONTRAST_FILE).unlink(missing_ok=True)
        return path

    def __repr__(self) -> str:
        count = len(self._frame) // max(len(self.treatments), 1)
        samples = int(self._frame["n"].max()) if len(self._frame) else 0
        return f"Result({count} {self.kind} x {', '.join(self.treatments)}, {samples} samples)"


def _check_tables(tables: Mapping[str, Columns], contrast: Columns | None, rows: int) -> None:
    if not tables:
        raise InputError("treatments is empty; pass at least one, such as {'HOL': moments}")
    if CONTRAST in tables:
        raise InputError(f"a treatment cannot be called {CONTRAST!r}, the name of the contrast; rename it")
    if contrast is not None and len(tables) < 2:
        raise InputError(f"a contrast compares two treatments, {list(tables)} is one; pass contrast=None")
    first = next(iter(tables))
    for name, columns in tables.items():
        if unlike := sorted(set(columns) ^ set(tables[first])):
            raise InputError(f"{name!r} and {first!r} differ in the columns {', '.join(unlike)}; give both the same")
    for name, columns in [*tables.items(), *([(CONTRAST, contrast)] if contrast is not None else [])]:
        if missing := [column for column in REQUIRED if column not in columns]:
            raise InputError(f"{name!r} lacks the columns {', '.join(missing)}; fill with nan what is not known")
        if reserved := [column for column in columns if column in SITE_COLUMNS]:
            raise InputError(f"columns {reserved} of {name!r} are written by the result itself; rename them")
        for column, values in columns.items():
            if len(values) != rows:
                raise InputError(
                    f"columns of {name!r} describe {len(values)} neurons ({column!r}) but there are {rows} sites"
                )


def load_result(folder: str | os.PathLike[str]) -> Result:
    """Read what ``Result.save`` wrote.

    Raises
    ------
    InputError
        Naming the file and the mend: a missing folder or file, broken JSON, another format, a table that is not the one
        saved (truncated, edited, or an interrupted save).
    """
    path = Path(folder)
    mend = "pass a folder written by Result.save, or run the search again"
    if not path.is_dir():
        raise InputError(f"{str(path)!r} is no folder; {mend}")
    manifest = read_json(path / MANIFEST_FILE, mend)
    described, files = manifest.get("result"), manifest.pop("files", None)
    if not isinstance(described, dict) or not isinstance(files, dict) or NEURONS_FILE not in files:
        raise InputError(f"{str(path / MANIFEST_FILE)!r} lacks what 'result' and 'files' should say; {mend}")
    if described.get("format") != FORMAT:
        raise InputError(
            f"{str(path / MANIFEST_FILE)!r} has format {described.get('format')!r}, this pyneuro reads {FORMAT}; "
            "read it with the pyneuro that wrote it, named under 'versions'"
        )
    if missing := [key for key in ("kind", "shape", "treatments", "ci") if key not in described]:
        raise InputError(f"{str(path / MANIFEST_FILE)!r} lacks {', '.join(missing)} under 'result'; {mend}")
    tables = {
        name: _read_table(path / name, files[name], mend) for name in (NEURONS_FILE, CONTRAST_FILE) if name in files
    }
    return Result(manifest, tables[NEURONS_FILE], tables.get(CONTRAST_FILE))


def finished_result(
    folder: str | os.PathLike[str], settings: Mapping[str, Any], ci: float, resume: bool
) -> Result | None:
    """The finished result in a folder that a search is about to use; None where there is none.

    Raises
    ------
    InputError
        There is one and ``resume`` is False: a result is never overwritten.
    ResumeError
        There is one, of other settings; the message lists what differs.
    """
    path = Path(folder)
    if not (path / MANIFEST_FILE).exists():
        return None
    if not resume:
        raise InputError(
            f"folder {str(path)!r} holds a finished result; read it with load_result, pass resume=True (--resume) "
            "to get it back, or choose another folder"
        )
    found = load_result(path)
    given = json.loads(to_json({**settings, "ci": ci}, "setting"))
    stored = {**found.manifest.get("settings", {}), "ci": found.manifest["result"]["ci"]}
    check_same_settings(stored, given, f"folder {str(path)!r} holds a finished result")
    return found


def _to_parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _read_table(path: Path, entry: Any, mend: str) -> pd.DataFrame:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read ({error.strerror}); {mend}") from error
    if not isinstance(entry, Mapping) or "sha256" not in entry:
        raise InputError(f"the manifest beside {str(path)!r} lacks its sha256; {mend}")
    if sha256(content) != entry["sha256"]:
        raise InputError(
            f"{str(path)!r} is not the table its manifest describes ({len(content)} bytes, not {entry.get('bytes')}): "
            f"truncated, edited, or an interrupted save; {mend}"
        )
    try:
        return pd.read_parquet(io.BytesIO(content))
    except (ValueError, OSError) as error:
        raise InputError(f"{str(path)!r} is not a readable Parquet file ({error}); {mend}") from error
