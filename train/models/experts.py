"""Feed-forward layers: one SwiGLU for all tokens, or a mixture of them.

Letters of the shapes: b batch, l tokens, t tokens of all the batch, d width, e experts, h hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Routing:
    """What a router did. balance: e Σ f_i P_i, f_i the share of tokens sent to expert i, P_i its mean probability."""

    balance: Float[Tensor, ""]
    load: Float[Tensor, " e"]


class SwiGLU(nn.Module):
    """W_out (silu(W_g x) ⊙ W_u x), without biases. Source: Shazeer, arXiv 2002.05202."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w_in = nn.Linear(width, 2 * hidden, bias=False)
        self.w_out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Each token alone."""
        gate, up = self.w_in(x).chunk(2, -1)
        return self.w_out(F.silu(gate) * up)


class MoE(nn.Module):
    """Mixture of SwiGLU experts: y = shared(x) + Σ over the greedy top experts of w_i expert_i(x).

    w: the softmax of the router, over the chosen experts made to sum to 1. No capacity: no token is dropped, and a
    token's route depends on no other. Source: DeepSeekMoE, arXiv 2401.06066, with one group as MMAIF has it.
    """

    DECAYED = ("w_in", "w_out")

    def __init__(self, width: int, experts: int, active: int, hidden: int, shared: int) -> None:
        super().__init__()
        self.experts, self.active = experts, active
        self.router = nn.Linear(width, experts, bias=False)
        self.w_in = nn.Parameter(torch.zeros(experts, width, 2 * hidden))
        self.w_out = nn.Parameter(torch.zeros(experts, hidden, width))
        self.shared = SwiGLU(width, shared) if shared else None

    def forward(
        self, x: Float[Tensor, "b l d"], mask: Bool[Tensor, "b l"] | None
    ) -> tuple[Float[Tensor, "b l d"], Routing]:
        """Each token through its experts; the mask keeps padding out of the statistics alone."""
        tokens = rearrange(x, "b l d -> (b l) d")
        probability = F.linear(tokens.float(), self.router.weight.float()).softmax(-1)
        weight, chosen = probability.topk(self.active, -1)
        weight = weight / weight.sum(-1, keepdim=True)
        order = chosen.flatten().argsort(stable=True)
        counts = (chosen.flatten()[:, None] == torch.arange(self.experts, device=x.device)).sum(0)
        done = self._experts(tokens.repeat_interleave(self.active, 0)[order], counts)
        back = rearrange(done[order.argsort()], "(t active) d -> t active d", active=self.active)
        y = (back * weight[..., None].to(back.dtype)).sum(1)
        if self.shared is not None:
            y = y + self.shared(tokens)
        return y.view_as(x), self._routing(probability, chosen, mask)

    def _experts(self, tokens: Float[Tensor, "t d"], counts: Int64[Tensor, " e"]) -> Float[Tensor, "t d"]:
        """Tokens in order of their experts through them: all in one product on a GPU, else one after the other."""
        product = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else tokens.dtype
        if tokens.is_cuda and product == torch.bfloat16:
            return swiglu_grouped(tokens.to(product), self.w_in.to(product), self.w_out.to(product), counts)
        done: list[Tensor] = []
        for i, part in enumerate(tokens.split(counts.tolist())):
            gate, up = (part @ self.w_in[i].to(part.dtype)).chunk(2, -1)
            done.append((F.silu(gate) * up) @ self.w_out[i].to(part.dtype))
        return torch.cat(done)

    def _routing(self, probability: Tensor, chosen: Tensor, mask: Tensor | None) -> Routing:
        """Load-balancing loss e Σ f_i P_i over the tokens that are not padding; 1 at balance (arXiv 2101.03961).

        In a training run of several processes f and the number of tokens are of all of them, and P is this process's
        part times their number: the mean of their losses, which is what their gradients are averaged to, is the loss
        of the batch as a whole, since it is linear in P.
        """
        sent = F.one_hot(chosen, self.experts).sum(1) / self.active
        real = probability.new_ones(len(probability)) if mask is None else mask.flatten().to(probability.dtype)
        sums, world = torch.cat([(sent * real[:, None]).sum(0), real.sum()[None]]), 1
        if self.training and dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
            world = dist.get_world_size()
        load = sums[:-1] / sums[-1]
        mean = (probability * real[:, None]).sum(0) * world / sums[-1]
        return Routing(self.experts * (load * mean).sum(), load)


def swiglu_grouped(
    tokens: Float[Tensor, "t d"],
    w_in: Float[Tensor, "e d two_h"],
    w_out: Float[Tensor, "e h d"],
    counts: Int64[Tensor, " e"],
) -> Float[Tensor, "t d"]:
    """SwiGLU of each token by its expert, without a loop over experts and without waiting to know the counts.

    tokens: in order of their experts; counts: how many each expert has.
    """
    ends = counts.cumsum(0).to(torch.int32)
    gate, up = F.grouped_mm(tokens, w_in, offs=ends).chunk(2, -1)
    return F.grouped_mm(F.silu(gate) * up, w_out, offs=ends)
