"""Results on disk and on paper: the table, its manifest, the partial state of a search, figures and a text report."""

from pyneuro.results.compare import Comparison, compare
from pyneuro.results.figures import save_figures
from pyneuro.results.report import summary_text
from pyneuro.results.result import CONTRAST, Result, finished_result, load_result
from pyneuro.results.store import TileStore

__all__ = [
    "CONTRAST",
    "Comparison",
    "Result",
    "TileStore",
    "compare",
    "finished_result",
    "load_result",
    "save_figures",
    "summary_text",
]
