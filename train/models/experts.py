"""Feed-forward layers: one SwiGLU for all tokens, or a mixture of experts: a router, and a SwiGLU or any other module.

Shapes: b batch, l tokens of a sample, t tokens of the batch, d width, e experts, h hidden width, n experts of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Choice:
    """The experts of each token, with their weights. probability: of all of them, in fp32."""

    weight: Float[Tensor, "t n"]
    chosen: Int64[Tensor, "t n"]
    probability: Float[Tensor, "t e"]


@dataclass(frozen=True)
class Routing:
    """Statistics of a router. balance: e Σ f_i P_i with f_i the fraction of tokens sent to expert i and P_i its mean
    probability. load: f_i. shares: f_i of each sample.
    """

    balance: Float[Tensor, ""]
    load: Float[Tensor, " e"]
    shares: Float[Tensor, "b e"]


Apply = Callable[[Tensor, Tensor], Tensor]
"""Experts: (tokens sorted by expert, the number of tokens of each expert) to their outputs."""


Gate = Callable[[Tensor], Tensor]
GATES: dict[str, Gate] = {"silu": F.silu, "gelu": F.gelu}
"""What the gate passes through: SwiGLU and GEGLU."""

GROUPS = 2
"""Groups of a grouped router, of which a token is sent to the experts of one."""


class SwiGLU(nn.Module):
    """W_out (g(W_g x) ⊙ W_u x), without biases, g of ``GATES``. Source: Shazeer, arXiv 2002.05202."""

    def __init__(self, width: int, hidden: int, gate: str = "silu") -> None:
        super().__init__()
        self.gate = GATES[gate]
        self.w_in = nn.Linear(width, 2 * hidden, bias=False)
        self.w_out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Apply to each token."""
        gate, up = self.w_in(x).chunk(2, -1)
        return self.w_out(self.gate(gate) * up)


class Router(nn.Linear):
    """Scores of the experts from a token's features, and the ``active`` best of them.

    weight: the softmax of the scores, renormalised over the chosen experts unless told otherwise. grouped: the experts
    stand in ``GROUPS`` groups, and those outside of the group with the largest probability are not chosen (DeepSeek-V2,
    arXiv 2405.04434, "group-limited greedy").
    """

    def __init__(
        self, width: int, experts: int, active: int, *, grouped: bool = False, renormalise: bool = True
    ) -> None:
        super().__init__(width, experts, bias=False)
        self.active, self.grouped, self.renormalise = active, grouped, renormalise

    def forward(self, tokens: Float[Tensor, "t d"]) -> Choice:  # type: ignore[override]
        """Choose. There is no capacity limit: no token is dropped, and the choice does not depend on others."""
        probability = self.probability(tokens)
        weight, chosen = self._allowed(probability).topk(self.active, -1)
        if self.renormalise:
            weight = weight / weight.sum(-1, keepdim=True)
        return Choice(weight, chosen, probability)

    def probability(self, tokens: Float[Tensor, "t d"]) -> Float[Tensor, "t e"]:
        """Probabilities of the experts, in fp32 whatever the precision around: in bf16 up to 1.3 % of tokens would get
        other experts."""
        with torch.autocast(tokens.device.type, enabled=False):
            logits = F.linear(tokens.float(), self.weight.float())
        assert logits.dtype == torch.float32, f"the router runs in {logits.dtype}"
        return logits.softmax(-1)

    def _allowed(self, probability: Float[Tensor, "t e"]) -> Float[Tensor, "t e"]:
        """The probabilities of the experts that a token may be sent to, −1 for the others."""
        if not self.grouped:
            return probability
        groups = rearrange(probability, "t (group e) -> t group e", group=GROUPS)
        best = groups.amax(-1)
        kept = F.one_hot(best.argmax(-1), GROUPS).bool()[..., None]
        return rearrange(groups.masked_fill(~kept, -1.0), "t group e -> t (group e)")

    def routing(self, choice: Choice, samples: int, mask: Bool[Tensor, "b l"] | None) -> Routing:
        """Load-balancing loss e Σ f_i P_i over the tokens that are not padding; 1 at uniform load (arXiv 2101.03961).

        In distributed training f and the number of tokens are summed over all ranks, and P is this rank's contribution
        times the world size. The loss is linear in P, so the mean of the ranks' losses, whose gradient the gradients
        are averaged to, is the loss of the global batch. samples: among which the tokens are divided equally.
        """
        assigned = F.one_hot(choice.chosen, self.out_features).sum(1) / self.active
        probability = choice.probability
        valid = probability.new_ones(len(probability)) if mask is None else mask.flatten().to(probability.dtype)
        counted = rearrange(assigned * valid[:, None], "(b l) e -> b l e", b=samples).sum(1)
        sums, world_size = torch.cat([(assigned * valid[:, None]).sum(0), valid.sum()[None]]), 1
        if self.training and dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
            world_size = dist.get_world_size()
        load = sums[:-1] / sums[-1]
        mean = (probability * valid[:, None]).sum(0) * world_size / sums[-1]
        return Routing(self.out_features * (load * mean).sum(), load, counted / counted.sum(1, keepdim=True))


def dispatch(tokens: Float[Tensor, "t *d"], choice: Choice, experts: Apply) -> Float[Tensor, "t *f"]:
    """Σ w_i expert_i(x) over the chosen experts of each token, or of whatever else the first axis counts."""
    active, count = choice.chosen.shape[1], choice.probability.shape[1]
    order = choice.chosen.flatten().argsort(stable=True)
    counts = (choice.chosen.flatten()[:, None] == torch.arange(count, device=tokens.device)).sum(0)
    outputs = experts(tokens.repeat_interleave(active, 0)[order], counts)
    gathered = rearrange(outputs[order.argsort()], "(t active) ... -> t active ...", active=active)
    weight = choice.weight.to(gathered.dtype)
    return (gathered * weight.view(*weight.shape, *([1] * (tokens.ndim - 1)))).sum(1)


class MoE(nn.Module):
    """Mixture of SwiGLU experts: y = shared(x) + Σ w_i expert_i(x) over those that a ``Router`` chooses.

    Source: DeepSeekMoE, arXiv 2401.06066.
    """

    DECAYED = ("w_in", "w_out")

    def __init__(self, router: Router, hidden: int, shared: int, gate: str = "silu") -> None:
        super().__init__()
        width, self.experts = router.in_features, router.out_features
        self.gate = GATES[gate]
        self.router = router
        self.w_in = nn.Parameter(torch.zeros(self.experts, width, 2 * hidden))
        self.w_out = nn.Parameter(torch.zeros(self.experts, hidden, width))
        self.shared = SwiGLU(width, shared, gate) if shared else None

    def forward(
        self, x: Float[Tensor, "b l d"], mask: Bool[Tensor, "b l"] | None
    ) -> tuple[Float[Tensor, "b l d"], Routing]:
        """Send each token through its experts. mask: False where a token is padding; it affects the statistics only."""
        tokens = rearrange(x, "b l d -> (b l) d")
        choice = self.router(tokens)
        if torch.compiler.is_exporting():
            y = swiglu_dense(tokens, self.w_in, self.w_out, choice, self.gate)
        else:
            y = dispatch(tokens, choice, self._experts)
        if self.shared is not None:
            y = y + self.shared(tokens)
        return y.view_as(x), self.router.routing(choice, len(x), mask)

    def _experts(self, tokens: Float[Tensor, "t d"], counts: Int64[Tensor, " e"]) -> Float[Tensor, "t d"]:
        """Apply the experts to tokens sorted by expert: by batched products on a GPU, else expert by expert."""
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else tokens.dtype
        if tokens.is_cuda and dtype == torch.bfloat16:
            product = swiglu_grouped if has_grouped_products(tokens.device) else swiglu_padded
            return product(tokens.to(dtype), self.w_in.to(dtype), self.w_out.to(dtype), counts, self.gate)
        return swiglu_each(tokens, self.w_in, self.w_out, counts.tolist(), self.gate)


class Experts(nn.ModuleList):
    """Experts that are modules of their own: each is applied to its tokens, also to none, so that all get gradients."""

    def forward(self, tokens: Float[Tensor, "t *d"], counts: Int64[Tensor, " e"]) -> Float[Tensor, "t *f"]:
        """Apply them to tokens sorted by expert."""
        return torch.cat([expert(part) for expert, part in zip(self, self.split(tokens, counts), strict=True)])

    def split(self, tokens: Tensor, counts: Tensor) -> Sequence[Tensor]:
        """The tokens of each expert."""
        return tokens.split(counts.tolist())


def swiglu_each(
    tokens: Float[Tensor, "t d"],
    w_in: Float[Tensor, "e d two_h"],
    w_out: Float[Tensor, "e h d"],
    counts: Sequence[int],
    act: Gate = F.silu,
) -> Float[Tensor, "t d"]:
    """Apply each expert's SwiGLU to its tokens, one expert after the other. tokens, counts: see ``swiglu_grouped``."""
    outputs: list[Tensor] = []
    for expert, part in enumerate(tokens.split(list(counts))):
        gate, up = (part @ w_in[expert].to(part.dtype)).chunk(2, -1)
        outputs.append((act(gate) * up) @ w_out[expert].to(part.dtype))
    return torch.cat(outputs)


def swiglu_dense(
    tokens: Float[Tensor, "t d"],
    w_in: Float[Tensor, "e d two_h"],
    w_out: Float[Tensor, "e h d"],
    choice: Choice,
    act: Gate = F.silu,
) -> Float[Tensor, "t d"]:
    """As ``dispatch``, all experts applied to every token, those not chosen with weight 0: no shape depends on values,
    as a traced graph wants it."""
    share = tokens.new_zeros(tokens.shape[0], len(w_in)).scatter(1, choice.chosen, choice.weight.to(tokens.dtype))
    gate, up = torch.einsum("td,edh->teh", tokens, w_in).chunk(2, -1)
    return torch.einsum("teh,ehd,te->td", act(gate) * up, w_out, share)


def swiglu_grouped(
    tokens: Float[Tensor, "t d"],
    w_in: Float[Tensor, "e d two_h"],
    w_out: Float[Tensor, "e h d"],
    counts: Int64[Tensor, " e"],
    act: Gate = F.silu,
) -> Float[Tensor, "t d"]:
    """Apply each expert's SwiGLU to its tokens by grouped matrix products, without synchronising to read the counts.

    tokens: sorted by expert; counts: the number of tokens of each expert.
    """
    ends = counts.cumsum(0).to(torch.int32)
    gate, up = F.grouped_mm(tokens, w_in, offs=ends).chunk(2, -1)
    return F.grouped_mm(act(gate) * up, w_out, offs=ends)


def swiglu_padded(
    tokens: Float[Tensor, "t d"],
    w_in: Float[Tensor, "e d two_h"],
    w_out: Float[Tensor, "e h d"],
    counts: Int64[Tensor, " e"],
    act: Gate = F.silu,
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
    return torch.bmm(act(gate) * up, w_out)[expert, row]


def has_grouped_products(device: torch.device) -> bool:
    """Whether torch has a kernel of its own for grouped products there: from compute capability 9.0 (H100) on."""
    return torch.cuda.get_device_capability(device) >= (9, 0)
