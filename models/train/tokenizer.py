"""The tokenizer: byte-level BPE as Qwen2 has it, in which every word of the task is one token."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from grammar import Grammar

USER, ASSISTANT, SYSTEM, END, PAD = (
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|end|>",
    "<|endoftext|>",
)
SPECIAL_TOKENS = [PAD, END, SYSTEM, USER, ASSISTANT]

_QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def task_words(grammar: Grammar) -> list[str]:
    """The task's words as the pre-tokeniser cuts them: with a space and, capitalised, without."""
    templates = grammar.filler_templates + grammar.fact_templates + grammar.question_templates
    replies = [
        grammar.unknown_answer,
        grammar.statement_reply,
        *itertools.chain(*grammar.small_talk),
    ]
    texts = [re.sub(r"\{\w+\}", "", text) for text in templates + replies]
    texts += itertools.chain(*grammar.words.values())
    words = {word for text in texts for word in re.findall(r"[A-Za-z]+", text)} - {"s"}
    openers = {word for word in words if word[0].isupper()}
    return sorted(" " + word for word in words) + sorted(openers) + ["'s"]


def build(grammar: Grammar) -> Tokenizer:
    """Learns the merges from the task's word list."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(task_words(grammar) * 2, trainer)
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS]
    )
    for word in task_words(grammar):
        if len(tokenizer.encode(word).ids) != 1:
            raise ValueError(f"{word!r} is not one token")
    return tokenizer


def load(directory: Path) -> Tokenizer:
    return Tokenizer.from_file(str(directory / "tokenizer.json"))
