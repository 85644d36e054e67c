"""Prints a generated document, its facts stated a second time at the end: a text to read."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from grammar import Grammar, render
from tokenizer import load as load_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="directory with recall_task.json and tokenizer")
    parser.add_argument("--tokens", type=int, default=20000, help="before the facts come again")
    parser.add_argument("--facts", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    grammar, rng = Grammar(options.model / "recall_task.json"), random.Random(options.seed)
    tokenizer = load_tokenizer(options.model)
    document = grammar.document(
        rng, options.tokens, options.facts, lambda text: len(tokenizer.encode(text).ids)
    )
    again = [render(rng.choice(grammar.fact_templates), fact) for fact in document.facts]
    print(" ".join([document.text, *again]))


if __name__ == "__main__":
    main()
