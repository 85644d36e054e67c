"""Sequential inference with In-Place TTT in NumPy and float32: no batching, no tricks.

Shares nothing with the training graph but the checkpoint, so that agreement means something.
"""

from __future__ import annotations

import copy
import json
import struct
from pathlib import Path

import numpy as np

Array = np.ndarray
_DTYPES = {"F32": np.float32, "F16": np.float16, "I32": np.int32}


def load_safetensors(path: Path) -> dict[str, Array]:
    """All tensors of the file as float32."""
    data = path.read_bytes()
    (header_bytes,) = struct.unpack("<Q", data[:8])
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + header_bytes]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + header_bytes + offset for offset in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            raw = np.frombuffer(data[begin:end], np.uint16).astype(np.uint32) << 16
            values = raw.view(np.float32)
        else:
            values = np.frombuffer(data[begin:end], _DTYPES[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return tensors


def _silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


class Session:
    """What one session has read: the window's keys and values, the open chunk, the fast weights."""

    def __init__(self, model: Model) -> None:
        c = model.config
        shape = (0, c["num_key_value_heads"], c["head_dim"])
        self.position = 0
        # layer -> [n, kv_heads, head_dim], the tokens still in the window
        self.keys = [np.zeros(shape, np.float32) for _ in range(c["num_hidden_layers"])]
        self.values = [k.copy() for k in self.keys]
        # layer -> W_down + delta [d, f], replaced at each update
        self.down = dict(model.down)
        # TTT layer -> the open chunk's (h [n, d], z [n, f])
        self.rows: dict[int, list[tuple[Array, Array]]] = {layer: [] for layer in model.ttt_layers}

    def fork(self) -> Session:
        other = copy.copy(self)  # arrays are replaced, never written, so forks may share them
        other.keys, other.values = list(self.keys), list(self.values)
        other.down = dict(self.down)
        other.rows = {layer: list(rows) for layer, rows in self.rows.items()}
        return other


class Model:
    """A checkpoint of the qwen3 type with ttt_target hidden_states."""

    def __init__(self, directory: Path) -> None:
        self.config = c = json.loads((directory / "config.json").read_text())
        self._w = load_safetensors(directory / "model.safetensors")
        self.window: int | None = c["sliding_window"] if c.get("use_sliding_window") else None
        self.chunk: int = c["ttt_chunk"]
        self.ttt_layers = [layer for layer in c["ttt_layers"] if layer < c["num_hidden_layers"]]
        self.down = {
            layer: self._w[f"model.layers.{layer}.mlp.down_proj.weight"]
            for layer in range(c["num_hidden_layers"])
        }
        half = c["head_dim"] // 2
        self._rope_rate = c["rope_theta"] ** (-np.arange(half, dtype=np.float64) / half)

    def read(self, session: Session, tokens: list[int], learn: bool = True) -> Array:
        """Logits [n, vocab_size] after each token. Learns at each chunk's end if `learn`."""
        logits, start = [], 0
        while start < len(tokens):
            piece = tokens[start : start + self.chunk - session.position % self.chunk]
            logits.append(self._read_piece(session, piece))
            start += len(piece)
            if session.position % self.chunk == 0:
                self._close_chunk(session, learn)
        return np.concatenate(logits)

    def _read_piece(self, session: Session, tokens: list[int]) -> Array:
        """Tokens that all lie in one chunk: [n] -> [n, vocab_size]."""
        x = self._w["model.embed_tokens.weight"][np.array(tokens)]  # [n, d]
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            x = x + self._attention(
                session, layer, self._norm(x, prefix + "input_layernorm.weight")
            )
            h = self._norm(x, prefix + "post_attention_layernorm.weight")
            gate, up = (
                self._linear(h, f"{prefix}mlp.{name}_proj.weight") for name in ("gate", "up")
            )
            z = _silu(gate) * up  # [n, f]
            x = x + z @ session.down[layer].T
            if layer in session.rows:
                session.rows[layer].append((h, z))
        session.position += len(tokens)
        return self._linear(self._norm(x, "model.norm.weight"), "lm_head.weight")

    def _close_chunk(self, session: Session, learn: bool) -> None:
        for layer, rows in session.rows.items():
            if learn:
                target, z = (np.concatenate(parts) for parts in zip(*rows))  # [C, d], [C, f]
                session.down[layer] = session.down[layer] + self._update(layer, target, z)
            rows.clear()

    def _update(self, layer: int, target: Array, z: Array) -> Array:
        """eta v' z with v = conv(target) @ W_proj: [d, f]."""
        prefix = f"model.layers.{layer}.mlp."
        weight = self._w[prefix + "ttt_conv.weight"][:, 0]  # [d, 5]
        padded = np.pad(target, ((2, 2), (0, 0)))
        conv = sum(padded[j : j + self.chunk] * weight[:, j] for j in range(5))
        return self.config["ttt_lr"] * (conv @ self._w[prefix + "ttt_proj.weight"]).T @ z

    def _attention(self, session: Session, layer: int, x: Array) -> Array:
        """x [n, d] -> [n, d]; keeps the keys and values that later tokens can still see."""
        c, prefix = self.config, f"model.layers.{layer}.self_attn."
        shape = (len(x), -1, c["head_dim"])
        q, k, v = (self._linear(x, f"{prefix}{name}_proj.weight").reshape(shape) for name in "qkv")
        q = self._rotate(self._norm(q, prefix + "q_norm.weight"), session.position)
        k = self._rotate(self._norm(k, prefix + "k_norm.weight"), session.position)
        keys = np.concatenate([session.keys[layer], k])  # [m, kv_heads, head_dim]
        values = np.concatenate([session.values[layer], v])
        kept = 0 if self.window is None else max(0, len(keys) - self.window)
        session.keys[layer], session.values[layer] = keys[kept:], values[kept:]
        group = q.shape[1] // keys.shape[1]
        keys, values = (np.repeat(t, group, axis=1).transpose(1, 0, 2) for t in (keys, values))
        scores = (
            q.transpose(1, 0, 2) @ keys.transpose(0, 2, 1) / np.sqrt(c["head_dim"])
        )  # [heads, n, m]
        back = (np.arange(len(x)) + keys.shape[1] - len(x))[:, None] - np.arange(keys.shape[1])[
            None, :
        ]
        hidden = (back < 0) | (back >= (self.window or keys.shape[1]))
        scores = np.where(hidden, np.float32(-np.inf), scores)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        y = (p / p.sum(-1, keepdims=True)) @ values  # [heads, n, head_dim]
        return self._linear(y.transpose(1, 0, 2).reshape(len(x), -1), prefix + "o_proj.weight")

    def _rotate(self, x: Array, position: int) -> Array:
        """RoPE on x [n, heads, head_dim] whose first row stands at `position`."""
        angle = (position + np.arange(len(x)))[:, None] * self._rope_rate
        cos, sin = (np.tile(f(angle), 2).astype(np.float32)[:, None] for f in (np.cos, np.sin))
        left, right = np.split(x, 2, axis=-1)
        return x * cos + np.concatenate([-right, left], axis=-1) * sin

    def _norm(self, x: Array, name: str) -> Array:
        scale = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.config["rms_norm_eps"])
        return x * scale.astype(np.float32) * self._w[name]

    def _linear(self, x: Array, name: str) -> Array:
        return x @ self._w[name].T
