"""Screens that people know: estimates of every neuron's effect at the price of a few forwards, to rank or to preselect.

====================  =============================================================  =====================  ===========
function              estimate                                                       source                 forwards
====================  =============================================================  =====================  ===========
attribution_patching  gradient × change                                              Nanda 2023             1 + 2 C
integrated_gradients  gradient averaged over the site's own path × change            Hanna et al. 2024      see there
qk_fix                the same as the first, the softmax of Q and K recomputed       Kramár et al. 2024     1 + 2 C
grad_drop             magnitude, one layer's gradient left out at a time             Kramár et al. 2024     L (1 + 2 C)
relp                  relevance coefficient × change                                 Jafari et al. 2025     1 + 2 C
====================  =============================================================  =====================  ===========

All take what ``pyneuro.search`` takes and return the same ``Result``; ``pyneuro.compare`` says how well one did. Costs
are a sample's, in forwards of the model, a backward counted as two, with C classes and L layers; a result's
``manifest["run"]`` has the number as ``forward_equivalents``.
"""

from pyneuro.screens.attribution_patching import attribution_patching
from pyneuro.screens.grad_drop import grad_drop
from pyneuro.screens.integrated_gradients import integrated_gradients
from pyneuro.screens.qk_fix import qk_fix
from pyneuro.screens.relp import relp

__all__ = ["attribution_patching", "grad_drop", "integrated_gradients", "qk_fix", "relp"]
