"""Which output of a classifier means entailment: label names as models write them, brought to one spelling."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pyneuro.errors import InputError

_SPELLINGS = {
    "entailment": ("entailment", "entail", "entails", "entailed"),
    "neutral": ("neutral",),
    "contradiction": ("contradiction", "contradict", "contradicts", "contradictory", "contradicted"),
    "non-entailment": tuple(
        f"{no}entail{end}" for no in ("not-", "non-", "non", "no-") for end in ("ment", "ed", "", "s")
    ),
}
_CANONICAL = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}


def canonical_label(name: str) -> str:
    """One spelling a label: "Not_Entailment" is "non-entailment", "ENTAIL" is "entailment".

    Case, ``_``, ``-`` and spaces do not matter. A name that is none of the four is only tidied.
    """
    tidy = re.sub(r"[\s_-]+", "-", str(name).strip().lower())
    return _CANONICAL.get(tidy, tidy)


def resolve_labels(
    id2label: Mapping[int, str] | None, n_outputs: int, labels: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Canonical label name to output column, in column order.

    Parameters
    ----------
    id2label : mapping of int to str, or None
        As the model's config has it.
    n_outputs : int
        Columns of the classifier.
    labels : mapping of str to int, optional
        Overrides `id2label`; must name every column once.

    Raises
    ------
    InputError
        When the columns are not each named once, or none is entailment ("LABEL_0" says nothing). The mend is spelled
        out.
    """
    if n_outputs < 2:
        raise InputError(
            f"the model has {n_outputs} output; pyneuro needs a classifier with at least two classes, one of them "
            "entailment"
        )
    source = "labels=" if labels is not None else "the model's id2label"
    pairs = labels.items() if labels is not None else [(name, index) for index, name in (id2label or {}).items()]
    try:
        named = [(str(name), int(index)) for name, index in pairs]
    except (TypeError, ValueError) as error:
        raise InputError(f"{source} gives {dict(pairs)}, not names with column numbers; {_mend(n_outputs)}") from error
    found = {canonical_label(name): index for name, index in named}
    shown = "{" + ", ".join(f"{name!r}: {index}" for name, index in named) + "}"
    if sorted(index for _, index in named) != list(range(n_outputs)) or len(found) != len(named):
        raise InputError(
            f"{source} gives {shown}, which does not name each of the outputs 0..{n_outputs - 1} once; "
            f"{_mend(n_outputs)}"
        )
    if "entailment" not in found:
        raise InputError(f"{source} gives {shown}, so which output means entailment is unknown; {_mend(n_outputs)}")
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _mend(n_outputs: int) -> str:
    names = {2: ("entailment", "non-entailment"), 3: ("entailment", "neutral", "contradiction")}
    example = names.get(n_outputs, ("entailment", *(f"other-{i}" for i in range(1, n_outputs))))
    text = ", ".join(f'"{name}": {index}' for index, name in enumerate(example))
    return f"look the order up on the model's card and pass it, for example labels={{{text}}}"
