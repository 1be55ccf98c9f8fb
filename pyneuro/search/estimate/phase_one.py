"""What the predictions of all samples add up to, counted on the host or where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pyneuro.effects import Moments
from pyneuro.effects.on_device import DeviceMoments
from pyneuro.engine.at_once import AtOnce
from pyneuro.errors import InputError
from pyneuro.models.weights import Encoding
from pyneuro.search.estimate.predictor import Prediction, Predictor
from pyneuro.search.evaluator import Float


@dataclass
class PhaseOne:
    """What predictions add up to."""

    moments: list[Moments]  # by treatment, and of the contrast
    size: Float  # [N]
    first_order: Float  # [2, N]
    left_out: list[int] = field(default_factory=list)  # samples below the probability floor
    done: int = 0

    @classmethod
    def fresh(cls, neurons: int, treatments: int) -> PhaseOne:
        return cls([Moments.zeros(neurons) for _ in range(treatments)], np.zeros(neurons), np.zeros((2, neurons)))

    def to_arrays(self) -> dict[str, np.ndarray]:
        arrays = {f"{j}/{k}": a for j, m in enumerate(self.moments) for k, a in m.to_arrays().items()}
        left_out = np.array(self.left_out, dtype=np.int64)
        return {**arrays, "size": self.size, "first_order": self.first_order, "left_out": left_out}

    @classmethod
    def from_arrays(cls, treatments: int, done: int, arrays: dict[str, np.ndarray]) -> PhaseOne:
        moments = [
            Moments.from_arrays({k.removeprefix(f"{j}/"): a for k, a in arrays.items() if k.startswith(f"{j}/")})
            for j in range(treatments)
        ]
        left_out = arrays["left_out"].tolist()
        return cls(moments, arrays["size"].copy(), arrays["first_order"].copy(), left_out, done)

    @property
    def scale(self) -> Float:
        """Predicted size of u, one pair's share of the correction: [N]."""
        reached, bound = self.first_order
        n = max(self.done - len(self.left_out), 1)
        ratio: Float = np.divide(reached, bound, out=np.ones_like(reached), where=(bound > 0) & (reached > 0))
        return self.size / n * ratio


class OnHost:
    """Predictions counted as they come."""

    def __init__(self, predictor: Predictor, encodings: Sequence[Encoding], one: PhaseOne) -> None:
        self._predictor, self._encodings, self._one = predictor, encodings, one
        self._found: Prediction

    def predict(self, sample: int) -> Float:
        """A sample's effects; returns the logits of its base run, [C]."""
        self._found = self._predictor.predict(self._encodings[sample])
        return self._found.run.base.logits.numpy()

    def add(self, sample: int) -> None:
        """Count what was predicted last."""
        for moments, terms in zip(self._one.moments, self._found.terms, strict=True):
            moments.update(terms, self._encodings[sample].label, sample)
        self._one.size += self._found.size
        self._one.first_order += self._found.first_order

    def read(self) -> PhaseOne:
        """What there is by now."""
        return self._one


class OnDevice:
    """Predictions counted on the device: one launch a sample, and the next sample is under way by then."""

    def __init__(self, predictor: Predictor, encodings: Sequence[Encoding], one: PhaseOne) -> None:
        self._predictor, self._encodings, self._one = predictor, encodings, one
        self._begun: dict[int, Callable[[], tuple[Tensor, Float]]] = {}
        self._moved: Tensor
        self._logits: Float
        backend = predictor.engine.exact.backend
        self._at_once = AtOnce(predictor.engine.exact, predictor.moved_inside, encodings[one.done :])
        exact = backend.move(torch.from_numpy(predictor.exact_neurons.astype(np.int64)))
        sizes = np.stack([one.size, *one.first_order])
        self._moments = DeviceMoments.of(predictor.response, predictor.where, exact, one.moments, sizes)

    @staticmethod
    def can(predictor: Predictor) -> bool:
        """Whether the predictions are on a device, of a model with few enough classes."""
        exact = predictor.engine.exact
        return exact.backend.name == "cuda" and DeviceMoments.can(len(exact.clf.label_index))

    def predict(self, sample: int) -> Float:
        """As ``OnHost``; of the effects, nothing but the exact ones is waited for."""
        launch = self._launch_inside if self._predictor.inside else self._launch
        for number in range(sample, min(sample + 2, len(self._encodings))):
            if number not in self._begun:
                self._begun[number] = launch(self._encodings[number])
        self._moved, self._logits = self._begun.pop(sample)()
        return self._logits

    def _launch(self, encoding: Encoding) -> Callable[[], tuple[Tensor, Float]]:
        """Begins a sample; what is returned gives its ``Found.moved`` and logits."""
        pending = self._predictor.engine.launch_begin(encoding)

        def result() -> tuple[Tensor, Float]:
            found = self._predictor.find(pending())
            return found.moved, found.run.base.logits.numpy()

        return result

    def _launch_inside(self, encoding: Encoding) -> Callable[[], tuple[Tensor, Float]]:
        """As ``_launch``, where nothing is exact."""
        (moved,), logits = self._at_once.launch(encoding)
        return lambda: (moved, logits().numpy())

    def add(self, sample: int) -> None:
        """Count what was predicted last."""
        sensitivity = self._predictor.sensitivity(self._logits)
        self._moments.add(self._moved, self._logits, self._encodings[sample].label, sample, sensitivity)

    def read(self) -> PhaseOne:
        """What there is by now. Raises InputError where a prediction was not finite."""
        if (bad := self._moments.first_bad()) is not None:
            neuron, sample = bad
            raise InputError(
                f"the prediction for {self._predictor.name(neuron)} on sample {self._encodings[sample].id!r} is NaN or "
                "infinite; check the replacement value"
            )
        one = self._one
        one.size, *first_order = self._moments.read(one.moments)
        one.first_order = np.stack(first_order)
        return one
