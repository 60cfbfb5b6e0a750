"""Feed-forward layers: one SwiGLU for all tokens, or a mixture of SwiGLU experts.

Shapes: b batch, l tokens of a sample, t tokens of the batch, d width, e experts, h hidden width.
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
    """Statistics of a router. balance: e Σ f_i P_i with f_i the fraction of tokens sent to expert i and P_i its mean
    probability. load: f_i.
    """

    balance: Float[Tensor, ""]
    load: Float[Tensor, " e"]


class SwiGLU(nn.Module):
    """W_out (silu(W_g x) ⊙ W_u x), without biases. Source: Shazeer, arXiv 2002.05202."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w_in = nn.Linear(width, 2 * hidden, bias=False)
        self.w_out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Apply to each token."""
        gate, up = self.w_in(x).chunk(2, -1)
        return self.w_out(F.silu(gate) * up)


class MoE(nn.Module):
    """Mixture of SwiGLU experts: y = shared(x) + Σ w_i expert_i(x) over the top ``active`` experts.

    w: the router's softmax, renormalised over the chosen experts. There is no capacity limit: no token is dropped, and
    the routing of a token does not depend on others. Source: DeepSeekMoE, arXiv 2401.06066, with one group as in MMAIF.
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
        """Send each token through its experts. mask: False where a token is padding; it affects the statistics only."""
        tokens = rearrange(x, "b l d -> (b l) d")
        probability = self._route(tokens)
        weight, chosen = probability.topk(self.active, -1)
        weight = weight / weight.sum(-1, keepdim=True)
        order = chosen.flatten().argsort(stable=True)
        counts = (chosen.flatten()[:, None] == torch.arange(self.experts, device=x.device)).sum(0)
        outputs = self._experts(tokens.repeat_interleave(self.active, 0)[order], counts)
        gathered = rearrange(outputs[order.argsort()], "(t active) d -> t active d", active=self.active)
        y = (gathered * weight[..., None].to(gathered.dtype)).sum(1)
        if self.shared is not None:
            y = y + self.shared(tokens)
        return y.view_as(x), self._routing(probability, chosen, mask)

    def _route(self, tokens: Float[Tensor, "t d"]) -> Float[Tensor, "t e"]:
        """Probabilities of the experts, in fp32 whatever the precision around: in bf16 up to 1.3 % of tokens would get
        other experts."""
        with torch.autocast(tokens.device.type, enabled=False):
            logits = F.linear(tokens.float(), self.router.weight.float())
        assert logits.dtype == torch.float32, f"the router runs in {logits.dtype}"
        return logits.softmax(-1)

    def _experts(self, tokens: Float[Tensor, "t d"], counts: Int64[Tensor, " e"]) -> Float[Tensor, "t d"]:
        """Apply the experts to tokens sorted by expert: by batched products on a GPU, else expert by expert."""
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else tokens.dtype
        if tokens.is_cuda and dtype == torch.bfloat16:
            product = swiglu_grouped if has_grouped_products(tokens.device) else swiglu_padded
            return product(tokens.to(dtype), self.w_in.to(dtype), self.w_out.to(dtype), counts)
        outputs: list[Tensor] = []
        for expert, part in enumerate(tokens.split(counts.tolist())):
            gate, up = (part @ self.w_in[expert].to(part.dtype)).chunk(2, -1)
            outputs.append((F.silu(gate) * up) @ self.w_out[expert].to(part.dtype))
        return torch.cat(outputs)

    def _routing(self, probability: Tensor, chosen: Tensor, mask: Tensor | None) -> Routing:
        """Load-balancing loss e Σ f_i P_i over the tokens that are not padding; 1 at uniform load (arXiv 2101.03961).

        In distributed training f and the number of tokens are summed over all ranks, and P is this rank's contribution
        times the world size. The loss is linear in P, so the mean of the ranks' losses, whose gradient the gradients
        are averaged to, is the loss of the global batch.
        """
        assigned = F.one_hot(chosen, self.experts).sum(1) / self.active
        valid = probability.new_ones(len(probability)) if mask is None else mask.flatten().to(probability.dtype)
        sums, world_size = torch.cat([(assigned * valid[:, None]).sum(0), valid.sum()[None]]), 1
        if self.training and dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
            world_size = dist.get_world_size()
        load = sums[:-1] / sums[-1]
        mean = (probability * valid[:, None]).sum(0) * world_size / sums[-1]
        return Routing(self.experts * (load * mean).sum(), load)


def swiglu_grouped(
    tokens: Float[Tensor, "t d"],
    w_in: Float[Tensor, "e d two_h"],
    w_out: Float[Tensor, "e h d"],
    counts: Int64[Tensor, " e"],
) -> Float[Tensor, "t d"]:
    """Apply each expert's SwiGLU to its tokens by grouped matrix products, without synchronising to read the counts.

    tokens: sorted by expert; counts: the number of tokens of each expert.
    """
    ends = counts.cumsum(0).to(torch.int32)
    gate, up = F.grouped_mm(tokens, w_in, offs=ends).chunk(2, -1)
    return F.grouped_mm(F.silu(gate) * up, w_out, offs=ends)


def swiglu_padded(
    tokens: Float[Tensor, "t d"],
    w_in: Float[Tensor, "e d two_h"],
    w_out: Float[Tensor, "e h d"],
    counts: Int64[Tensor, " e"],
) -> Float[Tensor, "t d"]:
    """As ``swiglu_grouped``, by batched products over the experts' tokens padded to the largest number of any expert.

    For GPUs without a grouped kernel, where torch's fallback launches the experts one after the other. It reads one
    number back from the GPU.
    """
    experts, longest = w_in.shape[0], int(counts.max())
    starts = counts.cumsum(0) - counts
    expert = torch.arange(experts, device=tokens.device).repeat_interleave(counts, output_size=len(tokens))
    row = torch.arange(len(tokens), device=tokens.device) - starts[expert]
    padded = tokens.new_zeros(experts, longest, tokens.shape[1]).index_put((expert, row), tokens)
    gate, up = torch.bmm(padded, w_in).chunk(2, -1)
    return torch.bmm(F.silu(gate) * up, w_out)[expert, row]


def has_grouped_products(device: torch.device) -> bool:
    """Whether torch has a kernel of its own for grouped products there: from compute capability 9.0 (H100) on."""
    return torch.cuda.get_device_capability(device) >= (9, 0)
