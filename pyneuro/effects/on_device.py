"""Moments of predicted effects on the device where the predictions are: a launch a sample, read when wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pyneuro.effects.moments import Moments, half_of
from pyneuro.effects.response import RESPONSES, Response
from pyneuro.ops import cuda

Float = npt.NDArray[np.float64]
# Attributes of Moments in the order of the rows of ``DeviceMoments.sums``.
_SUMS = ("mean", "m2", "low", "high", "magnitude", "class_mean", "class_m2", "half_mean")


@dataclass
class DeviceMoments:
    """Moments of N neurons under T treatments (and their contrast: J columns), and sums of what predictions leave out.
    Made by ``DeviceMoments.of``; the same numbers as ``Moments.update``, to rounding.

    Attributes
    ----------
    sums : float64 [J, 11 + 2 K, N]
        By K gold classes; see ``CountEffects`` in csrc/include/pyneuro/cuda.h.
    samples : int64 [J, 2, N]
        Where the extremes are.
    bad : int64 [N]
        First sample whose change of the logits is not finite, -1 while there is none. It and later ones are not
        counted.
    sizes : float64 [3, N]
        Sums of the size of what is left out, and of ``Prediction.first_order``.
    """

    response: Response
    where: Tensor  # int64 [T, N], row of a sample's predictions of every treatment and neuron
    exact: Tensor  # int64 [N], 1 for neurons of whose predictions nothing is left out, else 0
    classes: tuple[str, ...]
    count: int
    class_count: npt.NDArray[np.int64]
    half_count: npt.NDArray[np.int64]
    base: float
    sums: Tensor
    samples: Tensor
    bad: Tensor
    sizes: Tensor

    @staticmethod
    def can(classes: int) -> bool:
        """Whether models with so many classes are counted on a device."""
        return classes <= int(cuda.cuda_module().most_classes)

    @classmethod
    def of(
        cls, response: Response, where: Tensor, exact: Tensor, moments: Sequence[Moments], sizes: Float
    ) -> DeviceMoments:
        """To go on from these moments, whose neurons have all seen the same samples, and sums of sizes [3, N].

        `where` and `exact` are on the device.
        """
        device, first = where.device, moments[0]
        sums = np.stack([np.vstack([getattr(m, name) for name in _SUMS]) for m in moments])
        samples = np.stack([[m.low_sample, m.high_sample] for m in moments])
        seen = len(first) > 0
        return cls(
            response=response,
            where=where,
            exact=exact,
            classes=first.classes,
            count=int(first.count[0]) if seen else 0,
            class_count=first.class_count[:, :1].sum(1),
            half_count=first.half_count[:, :1].sum(1),
            base=float(first.base[0]) if seen else 0.0,
            sums=torch.from_numpy(sums).to(device),
            samples=torch.from_numpy(samples).to(device),
            bad=torch.full((len(first),), -1, dtype=torch.int64, device=device),
            sizes=torch.from_numpy(sizes.copy()).to(device),
        )

    def add(self, found: Tensor, logits: Float, label: str | None, sample: int, sensitivity: float) -> None:
        """One sample's predictions.

        Parameters
        ----------
        found : float64 Tensor [M, C], on the device
            Changes of logits 1 to C - 1 relative to logit 0, then the size of what they leave out.
        logits : float [C]
            Of the base run.
        label : str or None
            Gold class, one of ``classes``.
        sensitivity : float
            Of the response to a logit, for the sizes.
        """
        half = half_of(sample)
        self.count += 1
        self.half_count[half] += 1
        number = -1 if label is None else self.classes.index(label)
        if label is not None:
            self.class_count[number] += 1
        base = self.response.base(logits)
        self.base += base
        cuda.launch(
            "count_effects",
            found,
            *(tensor.data_ptr() for tensor in (found, self.where, self.exact)),
            RESPONSES.index(self.response.name),
            self.response.target,
            int(np.argmax(logits)),
            self.response.weights(logits).tolist(),
            self.response.log_base(logits) if self.response.is_ratio else 0.0,
            base,
            sensitivity,
            1 / self.count,
            0.0 if label is None else 1 / int(self.class_count[number]),
            1 / int(self.half_count[half]),
            sample,
            number,
            half,
            *(tensor.data_ptr() for tensor in (self.sums, self.samples, self.bad, self.sizes)),
            self.where.shape[1],
            self.where.shape[0],
            len(self.classes),
        )

    def read(self, moments: Sequence[Moments]) -> Float:
        """Write what there is by now into these moments; returns the sums of sizes [3, N]."""
        k = len(self.classes)
        sums, samples = self.sums.cpu().numpy(), self.samples.cpu().numpy()
        for column, (m, of_column) in enumerate(zip(moments, sums, strict=True)):
            parts = np.split(of_column, np.cumsum([3, 3, 1, 1, 1, k, k]))
            for name, part in zip(_SUMS, parts, strict=True):
                getattr(m, name)[...] = part
            m.low_sample[...], m.high_sample[...] = samples[column]
            m.count[...] = self.count
            m.class_count[...] = self.class_count[:, None]
            m.half_count[...] = self.half_count[:, None]
            m.base[...] = self.base
        return self.sizes.cpu().numpy()

    def first_bad(self) -> tuple[int, int] | None:
        """Neuron and sample of a change that is not finite, the first neuron's; None where all are."""
        found = torch.nonzero(self.bad >= 0).flatten()
        return (int(found[0]), int(self.bad[found[0]])) if len(found) else None
