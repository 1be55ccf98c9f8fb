"""Responses of a patched run and the statistics of their effects over samples."""

from pyneuro.effects.bootstrap import Bootstrap
from pyneuro.effects.moments import Moments
from pyneuro.effects.response import RESPONSES, Response, ResponseName, Terms

__all__ = ["RESPONSES", "Bootstrap", "Moments", "Response", "ResponseName", "Terms"]
