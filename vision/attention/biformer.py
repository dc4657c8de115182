"""Bi-level routing attention (BiFormer): each region attends to its top-k most similar regions.

Source: Zhu et al. 2023, arXiv:2303.08810, algorithm 1; rayleizhu/BiFormer@1697bbb, ops/bra_legacy.py
(`BiLevelRoutingAttention`), whose parameter names are kept, and ops/bra_nchw.py (`nchwBRA`).
"""

from __future__ import annotations

import logging
from typing import ClassVar, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

__all__ = ["BiLevelRoutingAttention", "RoutedWeights"]

#: Values in the tokens of a chunk, on a CPU without gradients: 1 MB of float32.
CACHE_NUMEL = 2**18
#: Values in the keys and values gathered at once, without gradients: on a CPU, elsewhere.
GATHERED, GATHERED_ELSEWHERE = 2**20, 2**28
#: Most tokens for which the weights of all pairs are masked instead of gathering keys.
DENSE_TOKENS = 1024
POOLS = ("identity", "ada_avgpool", "ada_maxpool", "avgpool", "maxpool")

logger = logging.getLogger(__name__)


class RoutedWeights(NamedTuple):
    """Routing and attention weights; regions are numbered row by row.

    Attributes:
        regions: indices of the regions that each region attends to, by decreasing routing logit.
        region_weights: softmax of their routing logits.
        weights: attention of each token of a region over the tokens of its regions in that order, then the context.
    """

    regions: Int[Tensor, "batch regions chosen"]
    region_weights: Float[Tensor, "batch regions chosen"]
    weights: Float[Tensor, "batch heads regions queries keys"]


class _Cut(NamedTuple):
    """The partition of a map: rows and columns of regions, height and width of a region, size of the map, padding."""

    rows: int
    columns: int
    high: int
    wide: int
    height: int
    width: int
    padding: tuple[int, ...]


class BiLevelRoutingAttention(nn.Module):
    """Attention of each region to the tokens of the `topk` regions with the highest routing logits.

        q, k, v = qkv(x);  routing logits of regions r, s: qk_scale * mean_r(q) . mean_s(k)
        out = wo(softmax(qk_scale * q K^T) V + lepe(v)),  K, V of the `topk` regions of the query's region

    The map is divided into `n_win` x `n_win` regions, and all heads share the routing, which is computed in float32, so
    that half precision rarely changes it. If `topk` exceeds the number of regions, all are attended to and a warning is
    logged once for each module; the authors' code raises an error.

    For sizes that `n_win` does not divide there are three kinds of `padding`; for others they are equal:

    - "mask": regions of ceil(side / n_win) tokens; padding is excluded from keys and means. This is ours.
    - "input": as the authors' `auto_pad`: the input is padded with zeros, so padding has the bias of `qkv` as
      query, key and value, and is included in means and in the convolution.
    - "projected": as the authors' `nchwBRA`: regions of floor(side / n_win) tokens (at least 1), hence more than
      `n_win` on a side; keys and values of the padding are zero but included, means exclude it.

    On a CPU without gradients the batch is computed in chunks that fit the cache; without gradients the gathered
    keys are bounded on any device.

    Args:
        dim: width of a token, a multiple of `num_heads`.
        num_heads: number of heads.
        n_win: regions on a side; None for regions of about 8 x 8 tokens.
        topk: regions that a region attends to, at least 1.
        qk_dim: width of queries and keys, a multiple of `num_heads`; `dim` by default.
        qk_scale: factor of the logits; by default qk_dim^-1/2 (not that of a head).
        side_dwconv: side of the convolution of the values, odd; 0 for none.
        padding: "mask", "input" or "projected", as above.
        kv_downsample_mode: pooling of keys and values within a region: "identity" (none), "ada_avgpool" and
            "ada_maxpool" to `kv_per_win` a side, "avgpool" and "maxpool" by `kv_downsample_ratio`.
        kv_per_win: side of a pooled region.
        kv_downsample_ratio: side of what is pooled into one.
        soft_routing: whether gathered keys and values are multiplied by the softmax of their routing logits.
        diff_routing: whether gradients flow through the routing; only with `soft_routing`.
        param_routing: whether mean queries and keys go through a linear layer; only with `diff_routing`.
        param_attention: "qkvo", or "qkv" for no output projection.

    Raises:
        ValueError: an option out of its range.

    Example:
        >>> BiLevelRoutingAttention(64, num_heads=2)(torch.rand(2, 28, 19, 64)).shape
        torch.Size([2, 28, 19, 64])
    """

    kind: ClassVar[Literal["mixer", "gate"]] = "mixer"
    paper: ClassVar[str] = "arXiv:2303.08810"
    takes_context: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 8,
        n_win: int | None = 7,
        topk: int = 4,
        qk_dim: int | None = None,
        qk_scale: float | int | None = None,
        side_dwconv: int = 5,
        padding: Literal["mask", "input", "projected"] = "mask",
        kv_downsample_mode: Literal["identity", "ada_avgpool", "ada_maxpool", "avgpool", "maxpool"] = "identity",
        kv_per_win: int = 4,
        kv_downsample_ratio: int = 4,
        soft_routing: bool = False,
        diff_routing: bool = False,
        param_routing: bool = False,
        param_attention: Literal["qkvo", "qkv"] = "qkvo",
    ) -> None:
        super().__init__()
        qk_dim = qk_dim or dim
        for name, number in (("dim", dim), ("qk_dim", qk_dim)):
            if number % num_heads:
                raise ValueError(f"{name} {number} does not divide by num_heads {num_heads}")
        if topk < 1 or (n_win is not None and n_win < 1):
            raise ValueError(f"topk is {topk} and n_win {n_win}; both must be at least 1")
        if side_dwconv and side_dwconv % 2 == 0:
            raise ValueError(f"side_dwconv {side_dwconv} is even; an odd side keeps the size, 0 leaves it out")
        if padding not in ("mask", "input", "projected"):
            raise ValueError(f"padding is {padding!r}; known: mask, input, projected")
        if kv_downsample_mode not in POOLS:
            raise ValueError(f"kv_downsample_mode is {kv_downsample_mode!r}; known: {', '.join(POOLS)}")
        if kv_downsample_mode != "identity" and min(kv_per_win, kv_downsample_ratio) < 1:
            raise ValueError(
                f"kv_per_win is {kv_per_win} and kv_downsample_ratio {kv_downsample_ratio}; both must be at least 1"
            )
        if diff_routing and not soft_routing:
            raise ValueError("diff_routing needs soft_routing=True: a hard choice of regions has no gradient")
        if param_routing and not diff_routing:
            raise ValueError("param_routing needs diff_routing=True, or its layer would never learn")
        if param_attention not in ("qkvo", "qkv"):
            raise ValueError(f"param_attention is {param_attention!r}; known: qkvo, qkv")
        self.num_heads, self.qk_dim = num_heads, qk_dim
        self.n_win, self.topk, self.padding = n_win, topk, padding
        self.scale = float(qk_scale or qk_dim**-0.5)
        self.kv_downsample_mode, self.kv_per_win, self.kv_downsample_ratio = (
            kv_downsample_mode,
            kv_per_win,
            kv_downsample_ratio,
        )
        self.soft_routing, self.diff_routing = soft_routing, diff_routing
        self.clamp_logged = False
        self.qkv = nn.ModuleDict({"qkv": nn.Linear(dim, 2 * qk_dim + dim)})
        self.router = nn.ModuleDict({"emb": nn.Linear(qk_dim, qk_dim)} if param_routing else {})
        self.lepe = nn.Conv2d(dim, dim, side_dwconv, padding=side_dwconv // 2, groups=dim) if side_dwconv else None
        self.wo = nn.Linear(dim, dim) if param_attention == "qkvo" else None
        self.init_weights()

    def init_weights(self) -> None:
        """Truncated normal with std 0.02 and zero biases; the convolution keeps PyTorch's default."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                module.reset_parameters()

    def forward(
        self,
        x: Float[Tensor, "batch height width dim"],
        context: Float[Tensor, "batch context dim"] | None = None,
    ) -> Float[Tensor, "batch height width dim"]:
        """Mix every region with those it is routed to, and with `context`."""
        if _whole() or x.device.type != "cpu" or x.numel() <= CACHE_NUMEL:
            return self._mix(x, context)
        images = max(1, CACHE_NUMEL // x[0].numel())
        first = self._mix(x[:images], None if context is None else context[:images])
        out = first.new_empty(x.shape)
        out[:images] = first
        for start in range(images, x.shape[0], images):
            chunk = slice(start, start + images)
            out[chunk] = self._mix(x[chunk], None if context is None else context[chunk])
        return out

    def attention_weights(
        self,
        x: Float[Tensor, "batch height width dim"],
        context: Float[Tensor, "batch context dim"] | None = None,
    ) -> RoutedWeights:
        """The routing and the attention weights of all heads, stored in full: for inspection, not for training."""
        cut, qkv, _ = self._project(x)
        routing = self._route(x, cut)
        query, key, value = self._by_region(qkv, cut)
        key, value, valid = self._pool(key, value, cut)
        more = None if context is None else self._context(context)
        key, _, allowed = self._gather(key, value, valid, routing, more, slice(None))
        logits = self.scale * query.flatten(0, 2) @ key.mT  # batch*heads*regions queries keys
        if allowed is not None:
            logits = logits.masked_fill(~allowed, -torch.inf)
        weights = logits.softmax(dim=-1).unflatten(0, query.shape[:3])
        return RoutedWeights(*routing, weights)

    def _mix(self, x: Tensor, context: Tensor | None) -> Tensor:
        cut, qkv, value_map = self._project(x)
        chosen = min(self.topk, cut.rows * cut.columns)
        tokens = qkv.shape[1] * qkv.shape[2]
        plain = self.kv_downsample_mode == "identity" and not self.soft_routing
        everything = chosen == cut.rows * cut.columns
        # gathering copies the keys of `chosen` regions, masking computes all pairs: equal cost near three tenths
        if plain and (everything or (tokens <= DENSE_TOKENS and 10 * chosen >= 3 * cut.rows * cut.columns)):
            mixed = self._masked(x, qkv, cut, context)
        else:
            mixed = self._gathered(x, qkv, cut, context)
        mixed = mixed[:, : value_map.shape[1], : value_map.shape[2]]  # batch height width dim
        if self.lepe is not None:
            mixed = mixed + self.lepe(value_map.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        mixed = mixed[:, : cut.height, : cut.width]
        return mixed if self.wo is None else self.wo(mixed)

    def _project(self, x: Tensor) -> tuple[_Cut, Tensor, Tensor]:
        """The cut, the padded queries, keys and values, and the values as the convolution receives them."""
        cut = self._cut(x.shape[1], x.shape[2])
        ragged = any(cut.padding)
        if ragged and self.padding == "input":
            x, ragged = F.pad(x, cut.padding), False
        qkv = self.qkv["qkv"](x)  # batch height width 2*qk_dim+dim
        value_map = qkv[..., 2 * self.qk_dim :]
        return cut, F.pad(qkv, cut.padding) if ragged else qkv, value_map

    def _cut(self, height: int, width: int) -> _Cut:
        """The partition of a map; logs a warning if it has fewer than `topk` regions."""
        sides = []
        for side in (height, width):
            windows = self.n_win or max(1, (side + 4) // 8)
            if self.padding == "input":
                sides.append((windows, -(-side // windows)))
            else:
                long = max(1, side // windows) if self.padding == "projected" else -(-side // windows)
                sides.append((-(-side // long), long))
        (rows, high), (columns, wide) = sides
        if not self.clamp_logged and not torch.compiler.is_compiling() and self.topk > rows * columns:
            self.clamp_logged = True
            logger.warning(
                "topk %d exceeds the %d x %d regions of a %d x %d map: all of them are attended to",
                *(self.topk, rows, columns, height, width),
            )
        padding = (0, 0, 0, columns * wide - width, 0, rows * high - height)
        return _Cut(rows, columns, high, wide, height, width, padding)

    def _route(
        self, x: Tensor, cut: _Cut
    ) -> tuple[Int[Tensor, "batch regions chosen"], Float[Tensor, "batch regions chosen"]]:
        """The regions of each region and the softmax of their logits, in float32 also under autocast.

        A mean query is the query of the mean token, which takes one pass over `x` alone.
        """
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self._route_exactly(x, cut)
        return self._route_exactly(x, cut)

    def _route_exactly(self, x: Tensor, cut: _Cut) -> tuple[Tensor, Tensor]:
        exact = torch.promote_types(x.dtype, torch.float32)
        linear = cast(nn.Linear, self.qkv["qkv"])
        weight, bias = linear.weight[: 2 * self.qk_dim], linear.bias[: 2 * self.qk_dim]
        if not self.diff_routing:
            x, weight, bias = x.detach(), weight.detach(), bias.detach()
        ragged = any(cut.padding)
        # two sums of one axis: one sum of both is many times slower on a CPU
        sums = _split(F.pad(x, cut.padding) if ragged else x, cut).sum(dim=2, dtype=exact).sum(dim=3).flatten(1, 2)
        if ragged and self.padding != "input":
            means = sums / _valid(cut, x.device).sum(dim=1, keepdim=True)  # batch regions dim
        else:
            means = sums / (cut.high * cut.wide)
        query, key = F.linear(means, weight.to(exact), bias.to(exact)).split(self.qk_dim, dim=-1)
        if "emb" in self.router:
            weight, bias = (parameter.to(exact) for parameter in self.router["emb"].parameters())
            query, key = F.linear(query, weight, bias), F.linear(key, weight, bias)
        logits = (self.scale * query) @ key.mT  # batch regions regions
        best, regions = logits.topk(min(self.topk, cut.rows * cut.columns), dim=-1)
        return regions, best.softmax(dim=-1)

    def _by_region(self, qkv: Tensor, cut: _Cut) -> list[Tensor]:
        """Queries, keys and values, each (batch, heads, regions, tokens, head_dim)."""
        parts = qkv.split([self.qk_dim, self.qk_dim, qkv.shape[-1] - 2 * self.qk_dim], dim=-1)
        tokens = [_split(part, cut).unflatten(-1, (self.num_heads, -1)).permute(0, 5, 1, 3, 2, 4, 6) for part in parts]
        return [token.flatten(4, 5).flatten(2, 3) for token in tokens]

    def _masked(self, x: Tensor, qkv: Tensor, cut: _Cut, context: Tensor | None) -> Tensor:
        """Attention over all pairs of tokens with a mask of the routed regions: the fastest if most are routed."""
        height, width = qkv.shape[1:3]
        parts = qkv.flatten(1, 2).split([self.qk_dim, self.qk_dim, qkv.shape[-1] - 2 * self.qk_dim], dim=-1)
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        allowed = None  # batch 1 queries keys
        region = torch.arange(height, device=qkv.device)[:, None] // cut.high * cut.columns
        region = (region + torch.arange(width, device=qkv.device) // cut.wide).flatten()
        regions = cut.rows * cut.columns
        if self.topk < regions:
            chosen, _ = self._route(x, cut)
            meets = torch.zeros(qkv.shape[0], regions, regions, dtype=torch.bool, device=qkv.device)
            meets = meets.scatter(2, chosen, True)
            allowed = meets[:, region][:, :, region].unsqueeze(1)
        if self.padding == "mask" and any(cut.padding):
            down = torch.arange(height, device=qkv.device)[:, None] < cut.height
            valid = (down & (torch.arange(width, device=qkv.device) < cut.width)).view(1, 1, 1, -1)
            allowed = valid if allowed is None else allowed & valid
        if context is not None:
            more_keys, more_values = self._context(context)
            key, value = torch.cat([key, more_keys], dim=2), torch.cat([value, more_values], dim=2)
            if allowed is not None:
                allowed = F.pad(allowed, (0, context.shape[1]), value=True)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, scale=self.scale)
        return mixed.transpose(1, 2).flatten(2).unflatten(1, (height, width))

    def _gathered(self, x: Tensor, qkv: Tensor, cut: _Cut, context: Tensor | None) -> Tensor:
        """Attention of each region to gathered keys and values: the fastest if few regions are routed."""
        routing = self._route(x, cut)
        query, key, value = self._by_region(qkv, cut)
        shape = (*query.shape[:2], cut.rows, cut.columns)
        key, value, valid = self._pool(key, value, cut)
        more = None if context is None else self._context(context)
        query = query.flatten(0, 2).unsqueeze(1)  # batch*heads*regions 1 tokens head_dim
        rows = [slice(None)]
        if not _whole():
            most = GATHERED if qkv.device.type == "cpu" else GATHERED_ELSEWHERE
            region = key.shape[3] * (key.shape[4] + value.shape[4])
            step = max(1, most // (region * routing[0].shape[-1]))
            rows = [slice(start, start + step) for start in range(0, query.shape[0], step)] or rows
        chunks = [self._attend(query[chunk], key, value, valid, routing, more, chunk) for chunk in rows]
        mixed = chunks[0] if len(chunks) == 1 else torch.cat(chunks)
        mixed = mixed.squeeze(1).unflatten(1, (cut.high, cut.wide)).unflatten(0, shape)
        mixed = mixed.permute(0, 2, 4, 3, 5, 1, 6)  # batch rows high columns wide heads head_dim
        return mixed.flatten(5).flatten(3, 4).flatten(1, 2)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        valid: Tensor | None,
        routing: tuple[Tensor, Tensor],
        more: tuple[Tensor, Tensor] | None,
        rows: slice,
    ) -> Tensor:
        keys, values, allowed = self._gather(key, value, valid, routing, more, rows)
        mask = None if allowed is None else allowed.unsqueeze(1)
        return F.scaled_dot_product_attention(
            query, keys.unsqueeze(1), values.unsqueeze(1), attn_mask=mask, scale=self.scale
        )

    def _pool(self, key: Tensor, value: Tensor, cut: _Cut) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values pooled within regions, and which are not padding (None: all)."""
        ragged = self.padding == "mask" and any(cut.padding)
        valid = _valid(cut, key.device) if ragged else None
        if self.kv_downsample_mode == "identity":
            return key, value, valid
        if valid is None:
            return self._pool_maps(key, cut), self._pool_maps(value, cut), None
        there = valid.unsqueeze(-1).to(key.dtype)  # regions tokens 1
        share = self._pool_maps(there, cut)  # regions fewer_tokens 1
        pooled = []
        for tokens in (key, value):
            if "avg" in self.kv_downsample_mode:
                mean = self._pool_maps(tokens * there, cut) / share.clamp(min=torch.finfo(share.dtype).tiny)
                pooled.append(mean)
            else:
                most = self._pool_maps(tokens.masked_fill(there == 0, torch.finfo(tokens.dtype).min), cut)
                pooled.append(most.masked_fill(share == 0, 0))
        return pooled[0], pooled[1], share[..., 0] > 0

    def _pool_maps(self, tokens: Tensor, cut: _Cut) -> Tensor:
        """(..., high * wide, channels) -> (..., fewer, channels)."""
        maps = tokens.flatten(0, -3).mT.unflatten(2, (cut.high, cut.wide))
        if self.kv_downsample_mode == "ada_avgpool":
            maps = F.adaptive_avg_pool2d(maps, self.kv_per_win)
        elif self.kv_downsample_mode == "ada_maxpool":
            maps = F.adaptive_max_pool2d(maps, self.kv_per_win)
        else:
            pool = F.avg_pool2d if self.kv_downsample_mode == "avgpool" else F.max_pool2d
            maps = pool(maps, (min(self.kv_downsample_ratio, cut.high), min(self.kv_downsample_ratio, cut.wide)))
        return maps.flatten(2).mT.contiguous().unflatten(0, tokens.shape[:-2])

    def _gather(
        self,
        key: Tensor,
        value: Tensor,
        valid: Tensor | None,
        routing: tuple[Tensor, Tensor],
        more: tuple[Tensor, Tensor] | None,
        rows: slice,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys, values and which of them count, for some of the batch*heads*regions rows of queries.

        `more` are keys and values that every region has and that always count.
        """
        batch, heads, count = key.shape[:3]
        regions, region_weights = routing
        start = torch.arange(batch * heads, device=key.device).view(batch, heads, 1, 1) * count
        ids = (regions.unsqueeze(1) + start).flatten(0, 2)[rows]  # rows chosen
        gathered = []
        for tokens in (key, value):
            flat = tokens.flatten(3).flatten(0, 2).index_select(0, ids.flatten())
            gathered.append(flat.unflatten(1, tokens.shape[3:]).unflatten(0, ids.shape).flatten(1, 2))
            # rows keys head_dim
        if self.soft_routing:
            weights = region_weights.unsqueeze(1).expand(-1, heads, -1, -1).flatten(0, 2)[rows]
            weights = weights.repeat_interleave(key.shape[3], dim=1).unsqueeze(-1).to(key.dtype)
            gathered = [tokens * weights for tokens in gathered]
        allowed = None if valid is None else valid[ids % count].flatten(1).unsqueeze(1)  # rows 1 keys
        if more is not None:
            same = [tokens.unsqueeze(2).expand(-1, -1, count, -1, -1).flatten(0, 2)[rows] for tokens in more]
            gathered = [torch.cat(pair, dim=1) for pair in zip(gathered, same, strict=True)]
            if allowed is not None:
                allowed = F.pad(allowed, (0, same[0].shape[1]), value=True)
        return gathered[0], gathered[1], allowed

    def _context(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of further tokens, each (batch, heads, tokens, head_dim)."""
        linear = cast(nn.Linear, self.qkv["qkv"])
        parts = F.linear(context, linear.weight[self.qk_dim :], linear.bias[self.qk_dim :]).split(
            [self.qk_dim, linear.out_features - 2 * self.qk_dim], dim=-1
        )
        key, value = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        return key, value


def _split(x: Tensor, cut: _Cut) -> Tensor:
    """(batch, height, width, ...) -> (batch, rows, high, columns, wide, ...), a view."""
    return x.unflatten(2, (cut.columns, cut.wide)).unflatten(1, (cut.rows, cut.high))


def _valid(cut: _Cut, device: torch.device) -> Bool[Tensor, "regions tokens"]:
    """Which tokens of a region are not padding."""
    down = (torch.arange(cut.rows * cut.high, device=device) < cut.height).view(cut.rows, 1, cut.high, 1)
    across = (torch.arange(cut.columns * cut.wide, device=device) < cut.width).view(1, cut.columns, 1, cut.wide)
    return (down & across).flatten(2).flatten(0, 1)


def _whole() -> bool:
    """Whether a pass may not be cut in chunks: for gradients, and in a graph."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling()
