"""Training data: endless packed batches of tokenised documents with questions in them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer

from grammar import Fact, Grammar, render
from tokenizer import ASSISTANT, END, SYSTEM, USER

ANSWER_WEIGHT = 1.0
TEXT_WEIGHT = 0.03
_NO_FACT = -1


@dataclass(frozen=True)
class Phase:
    """What documents look like in one part of the training."""

    tokens: tuple[int, ...]  # document lengths to choose from, one per batch
    min_facts: int
    max_facts: int


@dataclass
class Batch:
    """M tokens of documents of equal length, one after the other; all arrays are [M]."""

    tokens: torch.Tensor  # int64
    weights: torch.Tensor  # float32: how much predicting this token counts in the loss
    learned: torch.Tensor  # bool: does this token take part in the fast-weight update?
    distance: torch.Tensor  # int32: at an answer's first digit, tokens back to its fact; else -1
    document_tokens: int


class PieceTable:
    """Token ids of every sentence of the task, each with and without a leading space."""

    def __init__(
        self, grammar: Grammar, tokenizer: Tokenizer, rng: random.Random, fillers: int
    ) -> None:
        self._grammar = grammar
        self._tokenizer = tokenizer
        self.special = {t: tokenizer.token_to_id(t) for t in (USER, ASSISTANT, SYSTEM, END)}
        self.digit = {c: tokenizer.token_to_id(c) for c in "0123456789"}
        self.fillers = self._encode([grammar.filler(rng) for _ in range(fillers)])
        self._facts = self._tabulate(grammar.fact_templates)
        self._questions = self._tabulate(grammar.question_templates)
        self.unknown = tokenizer.encode(grammar.unknown_answer).ids
        self.noted = tokenizer.encode(grammar.statement_reply).ids
        self.small_talk = [
            (tokenizer.encode(user).ids, tokenizer.encode(reply).ids)
            for user, reply in grammar.small_talk
        ]

    def _encode(self, texts: list[str]) -> tuple[list[list[int]], list[list[int]]]:
        """Ids of the texts without and with a leading space."""
        spaced = self._tokenizer.encode_batch([" " + text for text in texts])
        return [e.ids for e in self._tokenizer.encode_batch(texts)], [e.ids for e in spaced]

    def _tabulate(
        self, templates: list[str]
    ) -> dict[tuple[str, str], list[tuple[list[int], list[int]]]]:
        """(name, attribute) -> each template's ids without and with a space, for the code 0000."""
        code = "0" * self._grammar.code_digits
        table = {}
        for name in self._grammar.words["name"]:
            for attribute in self._grammar.words["attribute"]:
                texts = [render(t, Fact(name, attribute, code)) for t in templates]
                table[name, attribute] = list(zip(*self._encode(texts)))
        return table

    def fact(self, rng: random.Random, fact: Fact, spaced: bool) -> list[int]:
        ids = list(rng.choice(self._facts[fact.name, fact.attribute])[spaced])
        start = ids.index(self.digit["0"])
        ids[start : start + len(fact.code)] = [self.digit[c] for c in fact.code]
        return ids

    def question(self, rng: random.Random, fact: Fact) -> list[int]:
        return rng.choice(self._questions[fact.name, fact.attribute])[0]


class DocumentWriter:
    """Writes one training document: what Batch holds, as lists."""

    def __init__(
        self, grammar: Grammar, pieces: PieceTable, rng: random.Random, tokens: int, phase: Phase
    ) -> None:
        self._pieces = pieces
        self._rng = rng
        self._limit = tokens
        facts = grammar.facts(rng, rng.randint(phase.min_facts, phase.max_facts) + 8)
        self._facts, self._never_stated = facts[:-8], facts[-8:]
        self._stated: list[tuple[Fact, int]] = []  # and where its statement ended
        self._chat_share = rng.choice((0.0, 0.0, rng.random()))
        self._questions_learned = rng.random() < 0.4
        self.tokens: list[int] = []
        self.weights: list[float] = []
        self.learned: list[bool] = []
        self.distance: list[int] = []

    def write(self) -> None:
        """Facts fall anywhere in the first part; questions come all along, or after it."""
        rng = self._rng
        reading_tokens = int(self._limit * rng.uniform(0.5, 0.9))
        interleaved = rng.random() < 0.5
        question_share = (rng.uniform(0.05, 0.4) if interleaved else 0.0, rng.uniform(0.4, 0.95))
        places = sorted(rng.randrange(reading_tokens) for _ in self._facts)
        if rng.random() < 0.1:
            self._special(SYSTEM)
            self._text(rng.choice(self._pieces.fillers[0]))
            self._special(END)
        while len(self.tokens) < self._limit:
            if len(self._stated) < len(places) and len(self.tokens) >= places[len(self._stated)]:
                self._state(self._facts[len(self._stated)])
            elif self._stated and rng.random() < question_share[len(self.tokens) >= reading_tokens]:
                self._ask()
            elif rng.random() < 0.03 * self._chat_share:
                self._turns(*rng.choice(self._pieces.small_talk))
            else:
                self._state(None)
        for values in (self.tokens, self.weights, self.learned, self.distance):
            del values[self._limit :]

    def _put(self, ids: list[int], weight: float = TEXT_WEIGHT, learned: bool = True) -> None:
        self.tokens += ids
        self.weights += [weight] * len(ids)
        self.learned += [learned] * len(ids)
        self.distance += [_NO_FACT] * len(ids)

    def _special(self, token: str, weight: float = TEXT_WEIGHT, learned: bool = True) -> None:
        self._put([self._pieces.special[token]], weight, learned)

    def _text(self, ids: list[int]) -> None:
        self._put(ids)

    def _turns(self, user: list[int], reply: list[int]) -> None:
        self._special(USER)
        self._text(user)
        self._reply(reply)

    def _reply(self, ids: list[int]) -> None:
        self._special(END)
        self._special(ASSISTANT)
        self._put(ids)
        self._special(END)

    def _state(self, fact: Fact | None) -> None:
        """States a fact (or a filler) as a plain sentence or as a user's turn that gets a reply."""
        rng, pieces = self._rng, self._pieces
        chat = rng.random() < self._chat_share
        if chat:
            self._special(USER)
        after_text = bool(self.tokens) and self.tokens[-1] not in pieces.special.values()
        spaced = after_text or (bool(self.tokens) and not chat and rng.random() < 0.5)
        self._text(pieces.fact(rng, fact, spaced) if fact else rng.choice(pieces.fillers[spaced]))
        if fact:
            self._stated.append((fact, len(self.tokens)))
        if chat:
            self._reply(pieces.noted)

    def _ask(self) -> None:
        """A question and its answer, mostly about a stated fact; may stay out of the updates."""
        rng, pieces, learned = self._rng, self._pieces, self._questions_learned
        known = rng.random() >= 0.08
        recent = self._stated[-3:] if rng.random() < 0.1 else self._stated
        fact, end = rng.choice(recent) if known else (rng.choice(self._never_stated), 0)
        self._special(USER, learned=learned)
        self._put(pieces.question(rng, fact), learned=learned)
        self._special(END, learned=learned)
        self._special(ASSISTANT, learned=learned)
        start = len(self.tokens)
        answer = [pieces.digit[c] for c in fact.code] if known else pieces.unknown
        self._put(answer, ANSWER_WEIGHT if known else ANSWER_WEIGHT / 2, learned)
        self._special(END, ANSWER_WEIGHT / 2, learned)
        if known:
            self.distance[start] = start - end


class BatchStream(torch.utils.data.IterableDataset):
    """Batches number first, first + 1, ... last - 1; batch i depends on the seed and i alone."""

    def __init__(
        self,
        grammar: Grammar,
        pieces: PieceTable,
        schedule: list[Phase],
        batch_tokens: int,
        seed: int,
    ) -> None:
        self._grammar = grammar
        self._pieces = pieces
        self._schedule = schedule  # the phase of each batch
        self._batch_tokens = batch_tokens
        self._seed = seed
        self.code_digits = grammar.code_digits

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        start, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for i in range(start, len(self._schedule), stride):
            yield self.batch(i)

    def batch(self, index: int) -> Batch:
        rng = random.Random(f"{self._seed}/{index}")
        phase = self._schedule[index]
        length = rng.choice(phase.tokens)
        writers = []
        for _ in range(self._batch_tokens // length):
            writers.append(DocumentWriter(self._grammar, self._pieces, rng, length, phase))
            writers[-1].write()

        def packed(name: str, dtype: type) -> torch.Tensor:
            return torch.from_numpy(
                np.concatenate([np.array(getattr(w, name), dtype) for w in writers])
            )

        return Batch(
            packed("tokens", np.int64),
            packed("weights", np.float32),
            packed("learned", np.bool_),
            packed("distance", np.int32),
            length,
        )
