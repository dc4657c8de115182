"""Bidirectional gated linear attention (ViG), with a decaying state in both directions at linear cost.

Not the Vision GNN of the same name. Source: Liao et al. 2024, arXiv:2405.18425, section 3; hustvl/ViG@dfb9d32
(`GatedLinearAttention`, `GLA2D`), whose parameter names are kept. Instead of the authors' Triton kernels, chunks
of tokens are computed with PyTorch's matrix products, as in Yang et al. 2023, arXiv:2312.06635, section 4.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["VigAttention", "gated_linear_attention"]

#: Most tokens in a chunk: on a CPU the best up to 4096 tokens.
CHUNK = 32
#: Chunks have as few as this where memories decay at once; there a token keeps at least exp(-20) of them.
SMALLEST_CHUNK = 8
#: Values in the input of a sub-batch, so that what comes of them stays in the cache.
CACHE_NUMEL = 2**17
#: Most that the memory may decay within a chunk, as a power of e: exp(80) still fits float32.
RANGE = 160.0


def gated_linear_attention(
    query: Float[Tensor, "batch heads tokens key_dim"],
    key: Float[Tensor, "batch heads tokens key_dim"],
    value: Float[Tensor, "batch heads tokens value_dim"],
    forward: Float[Tensor, "batch heads tokens key_dim"] | None = None,
    backward: Float[Tensor, "batch heads tokens key_dim"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "batch heads tokens value_dim"]:
    """Gated linear attention over the tokens: forward, backward, or the sum of both directions.

    Going forward the memory S is (key_dim, value_dim): S_i = diag(exp(forward_i)) S_(i-1) + key_i value_i^T, and
    token i reads key_dim**-0.5 * S_i^T query_i. Backward it is the same from the last token to the first. With
    both, a token reads itself twice. Time and memory are linear in the tokens.

    On a CPU the result is exact for any decay. Under `torch.compile` and `torch.export`, and on other devices,
    where control flow must not depend on data, a token keeps at least exp(-10) of the memory.

    Args:
        query: float32 or float64, as all others.
        key: of the same shape.
        value: what the memory takes in.
        forward: logarithm of the decay of the memory before each token, at most 0. None omits this direction.
        backward: the same for the opposite direction.
        scale: factor of the queries; key_dim**-0.5 by default.

    Raises:
        ValueError: neither direction is given.

    Example:
        >>> query, key, value = torch.rand(3, 1, 2, 50, 8)
        >>> decay = torch.full((1, 2, 50, 8), -0.1)
        >>> gated_linear_attention(query, key, value, forward=decay, backward=decay).shape
        torch.Size([1, 2, 50, 8])
    """
    ways = [(decay, back) for decay, back in ((forward, False), (backward, True)) if decay is not None]
    if not ways:
        raise ValueError("no decay is given; gated linear attention needs forward, backward or both")
    limit = _chunk_limit([decay for decay, _ in ways])
    scale = query.shape[3] ** -0.5 if scale is None else scale
    tokens, step = query.shape[2], _segment(value)
    segments = [slice(start, start + step) for start in range(0, tokens, step)]
    if len(segments) <= 1:
        found = [_one_way(query, key, value, decay, scale=scale, limit=limit, back=back)[0] for decay, back in ways]
        return found[0] if len(found) == 1 else found[0] + found[1]
    out = torch.empty_like(value)
    for decay, back in ways:
        first, memory = decay is ways[0][0], None
        for part in reversed(segments) if back else segments:
            inputs = query[:, :, part], key[:, :, part], value[:, :, part], decay[:, :, part]
            read, memory = _one_way(*inputs, scale=scale, limit=limit, back=back, memory=memory)
            out[:, :, part] = read if first else out[:, :, part].add_(read)
    return out


class VigAttention(nn.Module):
    """The attention of ViG: a depthwise convolution, bidirectional gated linear attention of it, and a gate.

        h = in_proj(x);  far = gated linear attention of h, forward plus backward, over `divisor`
        g = sigmoid(g_proj(h));  out = o_proj(g * RMSNorm(far) + (1 - g) * RMSNorm(h))

    Source: arXiv:2405.18425, equations 5-9. Every channel of a memory has its own decay for each token and way;
    a sigmoid gate interpolates between the global and the convolutional features.

    The authors halve the sum of both ways in training and quarter it when their plain model is evaluated, for
    which the published accuracies hold. Here `divisor` serves both. A norm follows, so 2 and 4 differ only by its eps:
    some 1e-5 of a logit.

    Numbers inside the recurrence are float32 for any dtype of input.

    Args:
        dim: channels, a multiple of `num_heads`.
        num_heads: heads; the authors have 64 channels a head in ViG and 32 in ViG-H.
        expand_key: width of queries and keys over `dim`.
        conv_act: whether SiLU follows the convolution (ViG-T).
        conv_bias: whether the convolution has a bias.
        out_act: whether SiLU comes before the last projection (ViG-T).
        gate_rank: width of the bottleneck that makes the decays.
        gate_normalizer: the logarithm of a decay is logsigmoid(logit) over this.
        norm_eps: of the norms over a head's channels.
        divisor: divisor of the sum of both directions, before the norm.

    Raises:
        ValueError: `num_heads` does not divide the width of the values (`dim`) or of the keys.

    Example:
        >>> VigAttention(64, num_heads=2)(torch.rand(2, 7, 5, 64)).shape
        torch.Size([2, 7, 5, 64])
    """

    kind: ClassVar[Literal["mixer", "gate"]] = "mixer"
    paper: ClassVar[str] = "arXiv:2405.18425"

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 1,
        expand_key: float | int = 0.5,
        conv_act: bool = False,
        conv_bias: bool = False,
        out_act: bool = False,
        gate_rank: int = 16,
        gate_normalizer: float | int = 16,
        norm_eps: float = 1e-6,
        divisor: float | int = 2,
    ) -> None:
        super().__init__()
        key_dim = int(dim * expand_key)
        for name, width in (("dim", dim), ("the width of the keys, dim * expand_key =", key_dim)):
            if width < 1 or width % num_heads:
                raise ValueError(f"{name} {width} is not a multiple of num_heads {num_heads}; use fewer heads")
        self.num_heads = num_heads
        self.key_dim = key_dim
        self.out_act = out_act
        self.gate_normalizer = gate_normalizer
        self.divisor = divisor
        conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=conv_bias)
        self.in_proj = nn.Sequential(conv, nn.SiLU() if conv_act else nn.Identity())
        self.qkv_proj = nn.Linear(dim, 2 * key_dim + dim, bias=False)
        self.gk_proj = nn.Sequential(nn.Linear(dim, gate_rank, bias=False), nn.Linear(gate_rank, 2 * key_dim))
        self.o_proj = nn.Linear(dim, dim, bias=False)
        self.g_norm = nn.RMSNorm(dim // num_heads, eps=norm_eps)
        self.l_norm = nn.RMSNorm(dim // num_heads, eps=norm_eps)
        self.g_proj = nn.Linear(dim, dim)
        self.init_weights()

    def init_weights(self) -> None:
        """Xavier uniform with a gain of 2**-2.5; biases are zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight, gain=2**-2.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        """Mix the tokens in row-major order, in both directions."""
        if (
            torch.is_grad_enabled()
            or x.device.type != "cpu"
            or torch.compiler.is_compiling()
            or x.numel() <= CACHE_NUMEL
        ):
            return self._mix(x)
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        images = max(1, CACHE_NUMEL // x[0].numel())
        for start in range(0, len(x), images):
            out[start : start + images] = self._mix(x[start : start + images])
        return out

    def _mix(self, x: Tensor) -> Tensor:
        near = self.in_proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # batch height width dim
        tokens = near.flatten(1, 2)
        heads = (self.num_heads, -1)
        far = _normed(self.g_norm, self._read(tokens))  # batch tokens heads head_dim
        gate = self.g_proj(tokens).unflatten(-1, heads).sigmoid_()
        mixed = torch.lerp(_normed(self.l_norm, tokens.unflatten(-1, heads)), far, gate).flatten(2)
        if self.out_act:
            mixed = F.silu(mixed)
        return self.o_proj(mixed).reshape_as(x)

    def _read(self, tokens: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens heads head_dim"]:
        exact = torch.promote_types(tokens.dtype, torch.float32)
        widths = [self.key_dim, self.key_dim, tokens.shape[-1]]
        decays = F.logsigmoid(self.gk_proj(tokens).to(exact)) / self.gate_normalizer
        parts = [*self.qkv_proj(tokens).to(exact).split(widths, dim=-1), *decays.chunk(2, dim=-1)]
        query, key, value, forward, backward = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts
        )
        scale = query.shape[-1] ** -0.5 / self.divisor
        with torch.autocast(tokens.device.type, enabled=False):
            both = gated_linear_attention(query, key, value, forward=forward, backward=backward, scale=scale)
        return both.transpose(1, 2).to(tokens.dtype)


def _normed(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """The norm in the precision of `x`, also under autocast."""
    return F.rms_norm(x, x.shape[-1:], norm.weight.to(x.dtype), norm.eps)


def _chunk_limit(decays: list[Tensor]) -> int:
    """Most tokens in a chunk, such that no exponent of the memory leaves float32."""
    steered = decays[0].device.type == "cpu" and not torch.compiler.is_compiling()
    if not steered or not decays[0].numel():
        return 2 * SMALLEST_CHUNK
    strongest = max(-decay.detach().amin().item() for decay in decays)
    return max(SMALLEST_CHUNK, min(CHUNK, int(RANGE / max(strongest, 1e-6))))


def _chunked(
    x: Float[Tensor, "batch heads tokens dim"], chunks: int, length: int
) -> Float[Tensor, "blocks length dim"]:
    """Cut the tokens into chunks; the last is filled with zeros, which neither feed nor decay the memory."""
    missing = chunks * length - x.shape[2]
    if missing:
        x = F.pad(x, (0, 0, 0, missing))
    return x.reshape(-1, length, x.shape[3])


def _segment(value: Tensor) -> int:
    """Tokens that are computed at once: on a CPU, without gradients, a number for which all stays in the cache."""
    if value.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return value.shape[2]
    return max(8 * CHUNK, 2 * CACHE_NUMEL // max(1, value[:, :, 0].numel()) // CHUNK * CHUNK)


def _one_way(
    query: Float[Tensor, "batch heads tokens key_dim"],
    key: Float[Tensor, "batch heads tokens key_dim"],
    value: Float[Tensor, "batch heads tokens value_dim"],
    decay: Float[Tensor, "batch heads tokens key_dim"],
    *,
    scale: float,
    limit: int,
    back: bool,
    memory: Float[Tensor, "maps key_dim value_dim"] | None = None,
) -> tuple[Float[Tensor, "batch heads tokens value_dim"], Float[Tensor, "maps key_dim value_dim"]]:
    """What is read of a memory that runs over these tokens, and what it is then; `memory` is what it was before."""
    batch, heads, tokens, _ = query.shape
    chunks = -(-tokens // limit)
    length = -(-tokens // chunks)  # as even as can be: 196 tokens are 7 chunks of 28
    parts = (query * scale, key, value, decay.clamp(min=-RANGE / limit))
    query, key, value, decay = (_chunked(x, chunks, length) for x in parts)  # blocks length dim
    decayed = decay.cumsum(dim=1)
    total = decayed[:, -1:]
    if back:
        decayed = total - decayed + decay
    middle = total / 2  # halves the exponents on both sides
    reach = middle.exp()
    seen, kept = query * (decayed - middle).exp(), key * (middle - decayed).exp()
    weights = seen @ kept.mT  # blocks length length
    weights = weights.triu_() if back else weights.tril_()
    added = (kept * reach).mT @ value  # blocks key_dim value_dim
    memories, memory = _scan(total.exp().mT, added, chunks, back, memory)
    out = (weights @ value).baddbmm_(seen * reach, memories)
    return out.reshape(batch, heads, chunks * length, value.shape[2])[:, :, :tokens], memory


def _scan(
    kept: Float[Tensor, "blocks key_dim 1"],
    added: Float[Tensor, "blocks key_dim value_dim"],
    chunks: int,
    back: bool,
    start: Float[Tensor, "maps key_dim value_dim"] | None,
) -> tuple[Float[Tensor, "blocks key_dim value_dim"], Float[Tensor, "maps key_dim value_dim"]]:
    """The memory before each chunk and after the last, from what a chunk keeps of it and what it adds."""
    steps = [*zip(*(x.unflatten(0, (-1, chunks)).unbind(1) for x in (kept, added)), strict=True)]
    memory = torch.zeros_like(steps[0][1]) if start is None else start
    memories = []
    for keep, add in reversed(steps) if back else steps:
        memories.append(memory)
        memory = torch.addcmul(add, keep, memory)
    return torch.stack(memories[::-1] if back else memories, dim=1).flatten(0, 1), memory
