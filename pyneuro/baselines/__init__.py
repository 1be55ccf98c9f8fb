"""What people do today, in plain PyTorch through the HuggingFace model: the other side of every benchmark.

====================  ==========================================================================  ===========
function              a forward patches                                                           effects
====================  ==========================================================================  ===========
hook_loop             one neuron, in a padded batch of samples (Lim et al. 2024)                  exact
neurons_in_batch      one sample, another neuron in every row (Vig et al. 2020)                   exact
suffix_only           the same, from the patched layer on                                         exact
vmap_hooks            one sample, vectorised over neurons by ``torch.func.vmap``                  exact
attribution_patching  none; one forward and a backward a class for all neurons (Nanda 2023)       first order
====================  ==========================================================================  ===========

All take what ``pyneuro.search`` takes and return the same ``Result``.
"""

from pyneuro.baselines.attribution_patching import attribution_patching
from pyneuro.baselines.hook_loop import hook_loop
from pyneuro.baselines.neurons_in_batch import neurons_in_batch
from pyneuro.baselines.options import Options
from pyneuro.baselines.suffix_only import suffix_only
from pyneuro.baselines.vmap_hooks import vmap_hooks

__all__ = ["Options", "attribution_patching", "hook_loop", "neurons_in_batch", "suffix_only", "vmap_hooks"]
