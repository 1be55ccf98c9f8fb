"""Published settings by name, as the arguments of the functions that they configure.

Each is one file in ``assets/presets``, with its sources, and with what is not in it because it could not be verified.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Any

from pyneuro.errors import InputError

_SUFFIX = ".toml"


@dataclass(frozen=True, eq=False)
class PresetSettings(Mapping[str, Mapping[str, Any]]):
    """Name of a public function or class, without ``pyneuro.``, to keyword arguments of it.

    Attributes
    ----------
    name : str
    about : str
        What it is, in a sentence.
    sources : tuple of str
    left_out : tuple of str
        What a reader may miss here, and why it is not there.
    arguments : mapping
        What the preset itself is a view of.
    """

    name: str
    about: str
    sources: tuple[str, ...]
    left_out: tuple[str, ...]
    arguments: Mapping[str, Mapping[str, Any]]

    def __getitem__(self, function: str) -> Mapping[str, Any]:
        if function not in self.arguments:
            raise KeyError(f"preset {self.name!r} says nothing of {function!r}; it has {', '.join(self.arguments)}")
        return self.arguments[function]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arguments)

    def __len__(self) -> int:
        return len(self.arguments)


def preset(name: str) -> PresetSettings:
    """A published setting.

    Parameters
    ----------
    name : str
        One of ``preset_names()``.

    Raises
    ------
    InputError
        For another name; the names are listed.

    Examples
    --------
    >>> published = preset("acl2024")
    >>> published["data.treatment_sets"]["high"]
    95
    >>> sorted(published)
    ['data.balanced_sample', 'data.treatment_sets', 'mean_activations', 'search']
    """
    if name not in (names := preset_names()):
        raise InputError(f"preset {name!r} is not known; use one of {', '.join(names)}")
    content = tomllib.loads((_folder() / f"{name}{_SUFFIX}").read_text(encoding="utf-8"))
    about, sources, left_out = content.pop("about"), content.pop("sources"), content.pop("left_out")
    arguments = MappingProxyType({function: MappingProxyType(values) for function, values in content.items()})
    return PresetSettings(name, about, tuple(sources), tuple(left_out), arguments)


def preset_names() -> tuple[str, ...]:
    """Names that ``preset`` takes, sorted."""
    files = (entry.name for entry in _folder().iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in files if name.endswith(_SUFFIX)))


def _folder() -> Any:
    return resources.files("pyneuro") / "assets" / "presets"
