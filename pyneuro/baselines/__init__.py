"""What people do today, in plain PyTorch through the HuggingFace model: the other side of every benchmark.

================  ================================================================
function          a forward patches
================  ================================================================
hook_loop         one neuron, in a padded batch of samples (Lim et al. 2024)
neurons_in_batch  one sample, another neuron in every row (Vig et al. 2020)
suffix_only       the same, from the patched layer on
vmap_hooks        one sample, vectorised over neurons by ``torch.func.vmap``
================  ================================================================

All are exact, take what ``pyneuro.search`` takes and return the same ``Result``. ``pyneuro.screens`` has estimates.
"""

from pyneuro.baselines.hook_loop import hook_loop
from pyneuro.baselines.neurons_in_batch import neurons_in_batch
from pyneuro.baselines.options import Options
from pyneuro.baselines.suffix_only import suffix_only
from pyneuro.baselines.vmap_hooks import vmap_hooks

__all__ = ["Options", "hook_loop", "neurons_in_batch", "suffix_only", "vmap_hooks"]
