"""A Qwen3-style decoder with In-Place TTT, trained through its own updates.

A batch is M tokens: documents of equal length, one after the other. Every tensor keeps that one
long row, so all document lengths have the same shapes and one compilation serves them all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class ModelConfig:
    vocab_size: int
    hidden_size: int = 256  # d
    intermediate_size: int = 768  # f
    layers: int = 6
    heads: int = 4
    head_dim: int = 64
    window: int = 128
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    ttt_layers: tuple[int, ...] = (1, 3, 5)
    ttt_chunk: int = 64  # C
    ttt_lr: float = 1.0
    span: int = 512  # G: updates act as attention within a span, as a matrix between spans


@dataclass
class Layout:
    """Where documents begin in the row; built once per document length."""

    cos: Tensor  # [M, head_dim] RoPE
    sin: Tensor  # [M, head_dim]
    attention_bias: Tensor  # [M / W, 1, W, 2 W]: 0 where a query sees a key, else -inf
    earlier_span: (
        Tensor  # [M / G, M / G]: 1 where column's span precedes row's in the same document
    )
    earlier_chunk: Tensor  # [G, G]: 1 where column's chunk precedes row's

    @staticmethod
    def build(
        config: ModelConfig, batch_tokens: int, document_tokens: int, device: torch.device
    ) -> Layout:
        assert document_tokens % config.span == 0 and batch_tokens % document_tokens == 0
        width, half = config.window, config.head_dim // 2
        place = torch.arange(batch_tokens, device=device)
        rate = config.rope_theta ** (-torch.arange(half, device=device, dtype=torch.float64) / half)
        angle = ((place % document_tokens).double()[:, None] * rate).repeat(1, 2)
        query = torch.arange(width, device=device)[:, None]
        back = (
            query - torch.arange(-width, width, device=device)[None, :]
        )  # tokens from key to query
        sees = ((back >= 0) & (back < width)).repeat(batch_tokens // width, 1, 1, 1)
        sees[:: document_tokens // width, :, :, :width] = False
        bias = torch.zeros(sees.shape, device=device, dtype=torch.bfloat16).masked_fill_(
            ~sees, float("-inf")
        )
        span = torch.arange(batch_tokens // config.span, device=device)
        document = span // (document_tokens // config.span)
        earlier_span = (document[:, None] == document[None, :]) & (span[:, None] > span[None, :])
        chunk = torch.arange(config.span, device=device) // config.ttt_chunk
        return Layout(
            angle.cos().float(),
            angle.sin().float(),
            bias,
            earlier_span.to(torch.bfloat16),
            (chunk[:, None] > chunk[None, :]).to(torch.bfloat16),
        )


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self._eps) * self.weight


def _linear(inputs: int, outputs: int, std: float = 0.02) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=std)
    return layer


def _rotate(x: Tensor, layout: Layout) -> Tensor:
    """RoPE on x [M, heads, head_dim]."""
    left, right = x.chunk(2, dim=-1)
    return x * layout.cos[:, None] + torch.cat([-right, left], dim=-1) * layout.sin[:, None]


class Attention(nn.Module):
    """Sliding-window attention in blocks of one window: each sees itself and the one before."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        size = c.heads * c.head_dim
        self._config = c
        self.q_proj = _linear(c.hidden_size, size)
        self.k_proj = _linear(c.hidden_size, size)
        self.v_proj = _linear(c.hidden_size, size)
        self.o_proj = _linear(size, c.hidden_size, 0.02 / (2 * c.layers) ** 0.5)
        self.q_norm = RMSNorm(c.head_dim, c.norm_eps)
        self.k_norm = RMSNorm(c.head_dim, c.norm_eps)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """x [M, d] -> [M, d]."""
        c = self._config
        heads = (x.shape[0], c.heads, c.head_dim)
        q = _rotate(self.q_norm(self.q_proj(x).view(heads)), layout)
        k = _rotate(self.k_norm(self.k_proj(x).view(heads)), layout)
        v = self.v_proj(x).view(heads)
        q, k, v = (self._blocks(t.to(v.dtype)) for t in (q, k, v))
        k = torch.cat([k.roll(1, 0), k], dim=2)  # [M / W, heads, 2 W, head_dim]
        v = torch.cat([v.roll(1, 0), v], dim=2)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=layout.attention_bias.to(q.dtype))
        return self.o_proj(y.transpose(1, 2).reshape(x.shape[0], -1))

    def _blocks(self, x: Tensor) -> Tensor:
        """[M, heads, head_dim] -> [M / W, heads, W, head_dim]."""
        return x.view(-1, self._config.window, *x.shape[1:]).transpose(1, 2)


class MLP(nn.Module):
    """SwiGLU; in a TTT layer the down-projection has learned from the document's earlier chunks."""

    def __init__(self, c: ModelConfig, learns: bool) -> None:
        super().__init__()
        self._config = c
        self.gate_proj = _linear(c.hidden_size, c.intermediate_size)
        self.up_proj = _linear(c.hidden_size, c.intermediate_size)
        self.down_proj = _linear(c.intermediate_size, c.hidden_size, 0.02 / (2 * c.layers) ** 0.5)
        if learns:
            self.ttt_conv = nn.Parameter(torch.zeros(c.hidden_size, 1, 5))
            self.ttt_proj = nn.Parameter(torch.randn(c.hidden_size, c.hidden_size) * 0.02)
        self._learns = learns

    def forward(self, h: Tensor, layout: Layout, learned: Tensor) -> Tensor:
        """h [M, d], learned [M] -> [M, d]."""
        z = F.silu(self.gate_proj(h)) * self.up_proj(h)  # [M, f]
        y = self.down_proj(z)
        return y + self._recall(z, self._values(h, learned), layout) if self._learns else y

    def _values(self, h: Tensor, learned: Tensor) -> Tensor:
        """v = eta * conv(h) @ W_proj, [M, d]; the conv is centred and stays inside its chunk."""
        c = self._config
        t = F.pad(h.float().view(-1, c.ttt_chunk, c.hidden_size), (0, 0, 2, 2))
        conv = sum(t[:, j : j + c.ttt_chunk] * self.ttt_conv[:, 0, j] for j in range(5))
        return (c.ttt_lr * conv.reshape(h.shape) @ self.ttt_proj) * learned[:, None]

    def _recall(self, z: Tensor, v: Tensor, layout: Layout) -> Tensor:
        """z (sum of v' z over the document's earlier chunks)', [M, d]."""
        c = self._config
        z = z.view(-1, c.span, c.intermediate_size)
        v = v.view(-1, c.span, c.hidden_size).to(z.dtype)
        update = v.transpose(1, 2) @ z  # [M / G, d, f], each span's own sum
        delta = (layout.earlier_span @ update.flatten(1)).view_as(update)
        near = (z @ z.transpose(1, 2)) * layout.earlier_chunk  # [M / G, G, G]
        return (z @ delta.transpose(1, 2) + near @ v).view(-1, c.hidden_size)


class Block(nn.Module):
    def __init__(self, c: ModelConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(c.hidden_size, c.norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.norm_eps)
        self.mlp = MLP(c, index in c.ttt_layers)

    def forward(self, x: Tensor, layout: Layout, learned: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), layout)
        return x + self.mlp(self.post_attention_layernorm(x), layout, learned)


class DemoModel(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.lm_head = _linear(config.hidden_size, config.vocab_size)

    def forward(self, tokens: Tensor, learned: Tensor, layout: Layout) -> Tensor:
        """tokens [M], learned [M] bool -> logits [M, vocab_size]."""
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, layout, learned)
        return self.lm_head(self.norm(x))
