"""Masked linear layers against what people write in PyTorch.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/masked_linear.py [--rounds 15]

chain: ``F.linear(x, W * STE(S > τ), b)``. nn_pruning: its sequence for the sigmoid threshold, ``STE(sigmoid(S) > τ)``,
a mask of the bias from the rows that keep any weight, then the product. Values and gradients are compared before
anything is timed; sides alternate in every round; medians. Peak memory is what a forward and backward allocate at their
highest, outputs and gradients included, by torch's profiler; the kernels' scratch, which torch does not see, is added.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch
from harness import interleaved, median, save
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from pyneuro.ops.reference import pack_bits

TAU = 0.01
MASKS = 8
OPS = torch.ops.pyneuro


class Binary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, threshold: float) -> Tensor:
        return (scores > threshold).type(scores.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return grad, None


def chain(x: Tensor, weight: Tensor, scores: Tensor, bias: Tensor) -> Tensor:
    return F.linear(x, weight * Binary.apply(scores, TAU).to(weight.dtype), bias)


def nn_pruning(x: Tensor, weight: Tensor, scores: Tensor, bias: Tensor) -> Tensor:
    mask = Binary.apply(torch.sigmoid(scores), 0.5).to(weight.dtype)
    rows = (mask.detach().sum(1) > 0).type(bias.dtype)
    return F.linear(x, weight * mask, bias * rows)


def fused(x: Tensor, weight: Tensor, scores: Tensor, bias: Tensor) -> Tensor:
    y: Tensor = torch.ops.pyneuro.masked_linear(x, weight, scores, TAU, bias, False)[0]
    return y


def fused_nn_pruning(x: Tensor, weight: Tensor, scores: Tensor, bias: Tensor) -> Tensor:
    y: Tensor = torch.ops.pyneuro.masked_linear(x, weight, scores, 0.0, bias, True)[0]
    return y


def case(rows: int, inner: int, out: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    x, weight, dy = torch.randn(rows, inner), torch.randn(out, inner) / inner**0.5, torch.randn(rows, out)
    scores = torch.empty(out, inner).uniform_(-0.02, 0.58)
    x, weight, dy = (t.to(dtype) for t in (x, weight, dy))
    return x.requires_grad_(), weight, scores.requires_grad_(), torch.randn(out).to(dtype), dy


def both(side: Any, x: Tensor, weight: Tensor, scores: Tensor, bias: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    x.grad = scores.grad = None
    y = side(x, weight, scores, bias)
    y.backward(dy)
    assert x.grad is not None and scores.grad is not None
    return y.detach(), x.grad, scores.grad


def peak(run: Any) -> int:
    """Bytes allocated at the highest, over what there was before."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, record_shapes=False) as found:
        run()
    level = highest = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            highest = max(highest, level)
    return highest


def scratch(rows: int, inner: int, out: int, itemsize: int) -> int:
    """Bytes of the kernels' own: panels of a thread, and a transposed block of dy."""
    block = min(rows, 4096 // itemsize)
    return max(512 << 10, inner * 32 * itemsize, out * 32 * itemsize) + (block + 80) * (min(out, 256) + 16) * itemsize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    args = parser.parse_args()
    rows_of = []
    for dtype in (getattr(torch, name) for name in args.dtypes):
        for inner, out in ((384, 384), (384, 1536), (1536, 384), (768, 768), (768, 3072), (3072, 768)):
            for rows in (64, 512, 4096):
                inputs = case(rows, inner, out, dtype)
                want, got = (both(side, *inputs) for side in (chain, fused))
                bound = 1e-4 if dtype == torch.float32 else 0.05
                for a, b in zip(got, want, strict=True):
                    assert float((a.float() - b.float()).norm() / b.float().norm()) < bound
                pairs = {"chain": chain, "fused": fused, "nn_pruning": nn_pruning, "fused_nn_pruning": fused_nn_pruning}
                number = max(3, args.rounds if rows < 4096 else args.rounds // 3)
                with torch.no_grad():
                    forward = interleaved({n: lambda f=f, i=inputs: f(*i[:4]) for n, f in pairs.items()}, number)
                whole = interleaved({n: lambda f=f, i=inputs: both(f, *i) for n, f in pairs.items()}, number)
                extra = {}
                for name, side in pairs.items():
                    inputs[0].grad = inputs[2].grad = None
                    extra[name] = peak(lambda f=side, i=inputs: both(f, *i))
                for name in ("fused", "fused_nn_pruning"):
                    extra[name] += scratch(rows, inner, out, dtype.itemsize)
                row = {
                    "dtype": str(dtype).removeprefix("torch."),
                    "rows": rows,
                    "in": inner,
                    "out": out,
                    "forward": {n: median(s) for n, s in forward.items()},
                    "forward_backward": {n: median(s) for n, s in whole.items()},
                    "peak_bytes": extra,
                    "outputs_and_bits": (rows * (inner + out)) * dtype.itemsize + out * inner * 4 + out * inner // 8,
                }
                rows_of.append(row)
                f, b = row["forward"], row["forward_backward"]
                print(
                    f"{row['dtype']} M {rows} K {inner} N {out}: forward {f['chain'] / f['fused']:.2f}, with backward "
                    f"{b['chain'] / b['fused']:.2f} (chain); {f['nn_pruning'] / f['fused_nn_pruning']:.2f}, "
                    f"{b['nn_pruning'] / b['fused_nn_pruning']:.2f} (nn_pruning); peak "
                    f"{extra['fused'] / row['outputs_and_bits']:.2f} of outputs and bits, chain "
                    f"{extra['chain'] / row['outputs_and_bits']:.2f}",
                    flush=True,
                )
    many = []
    for inner, out in ((384, 384), (768, 768), (768, 3072)):
        x, weight, _, bias, _ = case(64, inner, out, torch.float32)
        x = x.detach()
        scores = torch.empty(MASKS, out, inner).uniform_(-0.02, 0.58)
        bits = pack_bits(scores > TAU)
        sides = {
            "chain": lambda x=x, w=weight, s=scores, b=bias: [chain(x, w, each, b) for each in s],
            "multi": lambda x=x, w=weight, m=bits, b=bias: OPS.masked_linear_multi(x, w, m, b, False, True),
            "packed": lambda x=x, w=weight, m=bits, b=bias: [OPS.masked_linear_packed(x, w, e, b, False) for e in m],
        }
        for a, b in zip(sides["multi"](), sides["chain"](), strict=True):
            assert float((a - b).norm() / b.norm()) < 1e-5
        with torch.no_grad():
            seconds = {n: median(s) for n, s in interleaved(sides, args.rounds).items()}
        many.append({"rows": 64, "in": inner, "out": out, "masks": MASKS, "sparsity": 0.05, "seconds": seconds})
        print(
            f"{MASKS} masks, M 64 K {inner} N {out}: {seconds['chain'] / seconds['multi']:.2f} times faster than the "
            f"chain, {seconds['packed'] / seconds['multi']:.2f} than separate packed masks",
            flush=True,
        )
    save("masked_linear", {"rounds": args.rounds, "rows": rows_of, "many": many})


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    main()
