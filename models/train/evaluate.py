"""Measures recall of a written checkpoint: reads generated documents, then asks for every fact.

Every question is asked of the session as it stands at the document's end, and does not change it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from grammar import Document, Fact, Grammar, render  # noqa: E402
from reference import Model, Session  # noqa: E402
from tokenizer import load as load_tokenizer  # noqa: E402

DISTANCES = (
    128,
    256,
    1024,
    2048,
    4096,
    8192,
    16384,
    32768,
    1 << 30,
)  # upper ends of the table's columns


class Examiner:
    """A checkpoint with its tokenizer, task and turn format."""

    def __init__(self, directory: Path) -> None:
        self.grammar = Grammar(directory / "recall_task.json")
        self._model = Model(directory)
        self._tokenizer = load_tokenizer(directory)
        self._roles = json.loads((directory / "turn_format.json").read_text())["roles"]
        self._stop: int = self._model.config["eos_token_id"]

    def count_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text).ids)

    def read(self, text: str, learn: bool) -> Session:
        session = Session(self._model)
        self._model.read(session, self._tokenizer.encode(text).ids, learn)
        return session

    def ask(self, session: Session, question: str, max_tokens: int = 12) -> str:
        """The greedy answer of a fork of the session that does not learn."""
        user, assistant = self._roles["user"], self._roles["assistant"]
        turn = user["prefix"] + question + user["suffix"] + assistant["prefix"]
        session, tokens, answer = session.fork(), self._tokenizer.encode(turn).ids, []
        while len(answer) < max_tokens:
            token = int(self._model.read(session, tokens, learn=False)[-1].argmax())
            if token == self._stop:
                break
            answer.append(token)
            tokens = [token]
        return self._tokenizer.decode(answer)


@dataclass(frozen=True)
class Result:
    """One question: tokens back to its fact (None if never stated), and is the answer right?"""

    distance: int | None
    right: bool


def examine(
    directory: Path, seed: int, tokens: int, facts: int, unknown: int, learn: bool
) -> list[Result]:
    """Reads one document; asks for each of its facts and for `unknown` pairs it lacks."""
    examiner = Examiner(directory)
    grammar, rng = examiner.grammar, random.Random(seed)
    document: Document = grammar.document(rng, tokens, facts, examiner.count_tokens)
    session = examiner.read(document.text, learn)

    def is_right(fact: Fact, expected: str) -> bool:
        return (
            examiner.ask(session, render(rng.choice(grammar.question_templates), fact)) == expected
        )

    results = [
        Result(examiner.count_tokens(document.text[end:]), is_right(fact, fact.code))
        for fact, end in zip(document.facts, document.fact_end_chars)
    ]
    stated = {(fact.name, fact.attribute) for fact in document.facts}
    others = [f for f in grammar.facts(rng, facts + unknown) if (f.name, f.attribute) not in stated]
    return results + [
        Result(None, is_right(fact, grammar.unknown_answer)) for fact in others[:unknown]
    ]


def _share(values: list[bool]) -> str:
    return f"{sum(values) / len(values):.3f} ({len(values)})"


def report(documents: list[list[Result]]) -> str:
    """Recall: mean, worst document, by distance; and the share of unknown pairs called unknown."""
    recalls = [
        sum(r.right for r in d if r.distance is not None) / sum(r.distance is not None for r in d)
        for d in documents
    ]
    columns: dict[int, list[bool]] = defaultdict(list)
    unknown: list[bool] = []
    for result in (r for d in documents for r in d):
        if result.distance is None:
            unknown.append(result.right)
        else:
            columns[next(b for b in DISTANCES if result.distance <= b)].append(result.right)
    table = ", ".join(f"<= {b}: {_share(v)}" for b, v in sorted(columns.items()))
    mean = sum(recalls) / len(recalls)
    unknown_part = f" | unknown {_share(unknown)}" if unknown else ""
    return (
        f"recall {mean:.3f}, worst document {min(recalls):.3f} | by distance {table}{unknown_part}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path(__file__).parent.parent / "mneme-demo")
    parser.add_argument("--tokens", type=int, nargs="+", default=[16000])
    parser.add_argument("--facts", type=int, default=32)
    parser.add_argument("--unknown", type=int, default=8, help="questions about pairs never stated")
    parser.add_argument("--documents", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1000, help="of the first document")
    parser.add_argument("--modes", nargs="+", default=["learning", "frozen"])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    with multiprocessing.Pool(args.jobs) as pool:
        for tokens in args.tokens:
            for mode in args.modes:
                seeds = range(args.seed, args.seed + args.documents)
                work = [
                    (args.model, s, tokens, args.facts, args.unknown, mode == "learning")
                    for s in seeds
                ]
                print(f"{tokens} tokens {mode}: {report(pool.starmap(examine, work))}", flush=True)


if __name__ == "__main__":
    main()
