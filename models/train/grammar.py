"""The task's language: reads recall_task.json, draws sentences, facts and documents."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Fact:
    """A four-digit code that belongs to a (name, attribute) pair."""

    name: str
    attribute: str
    code: str


@dataclass(frozen=True)
class Document:
    """A text, the facts in it, and for each fact the character at which its sentence ends."""

    text: str
    facts: list[Fact]
    fact_end_chars: list[int]


class Grammar:
    """Draws from recall_task.json, whose "comment" key says what the fields mean."""

    def __init__(self, path: Path) -> None:
        task = json.loads(path.read_text())
        self.words: dict[str, list[str]] = task["words"]
        self.fact_templates: list[str] = task["fact"]
        self.question_templates: list[str] = task["question"]
        self.filler_templates: list[str] = task["filler"]
        self.unknown_answer: str = task["unknown_answer"]
        self.statement_reply: str = task["statement_reply"]
        self.small_talk: list[tuple[str, str]] = [
            (pair["user"], pair["assistant"]) for pair in task["small_talk"]
        ]
        self.code_digits: int = task["code_digits"]
        self._weights: dict[str, list[float] | None] = {
            slot: None
            if slot in task["uniform_slots"]
            else [1 / (r + 1) for r in range(len(words))]
            for slot, words in self.words.items()
        }

    def filler(self, rng: random.Random) -> str:
        """A sentence that says nothing worth keeping."""

        def draw(match: re.Match[str]) -> str:
            slot = match.group(1)
            return rng.choices(self.words[slot], self._weights[slot])[0]

        return _SLOT.sub(draw, rng.choice(self.filler_templates))

    def code(self, rng: random.Random) -> str:
        return "".join(rng.choice("0123456789") for _ in range(self.code_digits))

    def facts(self, rng: random.Random, count: int) -> list[Fact]:
        """`count` facts whose (name, attribute) pairs all differ."""
        attributes = self.words["attribute"]
        pairs = rng.sample(range(len(self.words["name"]) * len(attributes)), count)
        return [
            Fact(
                self.words["name"][p // len(attributes)],
                attributes[p % len(attributes)],
                self.code(rng),
            )
            for p in pairs
        ]

    def document(
        self, rng: random.Random, tokens: int, fact_count: int, count_tokens: Callable[[str], int]
    ) -> Document:
        """A document of at least `tokens` tokens: facts at random places among filler sentences."""
        facts = self.facts(rng, fact_count)
        statements = [render(rng.choice(self.fact_templates), fact) for fact in facts]
        length = sum(count_tokens(" " + statement) for statement in statements)
        sentences: list[str] = []
        while length < tokens:
            sentences.append(self.filler(rng))
            length += count_tokens(" " + sentences[-1])
        for statement in statements:
            sentences.insert(rng.randint(0, len(sentences)), statement)
        end_chars = dict(zip(sentences, itertools.accumulate(len(s) + 1 for s in sentences)))
        ends = [end_chars[statement] - 1 for statement in statements]
        return Document(" ".join(sentences), facts, ends)


def render(template: str, fact: Fact) -> str:
    """Fills a fact's or a question's template."""
    return template.format(name=fact.name, attribute=fact.attribute, code=fact.code)
