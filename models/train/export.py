"""Writes the checkpoint directory: bfloat16 weights, configuration, tokenizer, turn format."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from model import DemoModel
from tokenizer import ASSISTANT, END, PAD, SPECIAL_TOKENS, SYSTEM, USER


def _tensor_name(parameter: str) -> str:
    """Our parameter's name in a Hugging Face checkpoint."""
    if parameter.startswith("lm_head"):
        return parameter
    suffix = ".weight" if parameter.endswith(("ttt_conv", "ttt_proj")) else ""
    return f"model.{parameter}{suffix}"


def _model_config(model: DemoModel, tokenizer: Tokenizer) -> dict:
    c = model.config
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.heads,
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "rope_scaling": None,
        "max_position_embeddings": 262144,
        "use_sliding_window": True,
        "sliding_window": c.window,
        "max_window_layers": 0,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "use_cache": True,
        "torch_dtype": "bfloat16",
        "eos_token_id": tokenizer.token_to_id(END),
        "pad_token_id": tokenizer.token_to_id(PAD),
        "ttt_mode": True,
        "ttt_layers": list(c.ttt_layers),
        "ttt_chunk": c.ttt_chunk,
        "ttt_lr": c.ttt_lr,
        "ttt_proj": True,
        "ttt_target": "hidden_states",
    }


def _tokenizer_config(tokenizer: Tokenizer) -> dict:
    added = {
        str(tokenizer.token_to_id(token)): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for token in SPECIAL_TOKENS
    }
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": [SYSTEM, USER, ASSISTANT],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "errors": "replace",
        "model_max_length": 262144,
        "pad_token": PAD,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _generation_config(tokenizer: Tokenizer) -> dict:
    return {
        "do_sample": False,
        "temperature": 0.0,
        "eos_token_id": tokenizer.token_to_id(END),
        "pad_token_id": tokenizer.token_to_id(PAD),
    }


def _turn_format() -> dict:
    roles = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
    return {
        "name": "mneme-demo",
        "roles": {role: {"prefix": token, "suffix": END} for role, token in roles.items()},
    }


def write_checkpoint(directory: Path, model: DemoModel, tokenizer: Tokenizer) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {
        _tensor_name(name): parameter.detach().to("cpu", torch.bfloat16).contiguous()
        for name, parameter in model.named_parameters()
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(directory / "tokenizer.json"))
    files = {
        "config.json": _model_config(model, tokenizer),
        "tokenizer_config.json": _tokenizer_config(tokenizer),
        "generation_config.json": _generation_config(tokenizer),
        "turn_format.json": _turn_format(),
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content, indent=2) + "\n")
