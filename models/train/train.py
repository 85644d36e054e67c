"""Trains the demonstration model on one GPU and writes its checkpoint: `python3 train.py`.

Reads the task's language from recall_task.json; --output is then a complete model directory.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import export
import tokenizer as tokenizer_builder
from data import Batch, BatchStream, Phase, PieceTable
from grammar import Grammar
from model import DemoModel, Layout, ModelConfig

DISTANCES = (128, 512, 2048, 8192, 32768)  # upper ends of the buckets in the progress line


def make_schedule(steps: int, batch_tokens: int) -> list[Phase]:
    """Few facts over short distances first, long documents last."""
    parts = (
        (0.20, Phase((1024,), 2, 6)),
        (0.15, Phase((2048,), 4, 16)),
        (0.25, Phase((4096,), 8, 32)),
        (0.40, Phase((4096, 8192, 16384, 16384), 16, 40)),
    )
    schedule: list[Phase] = []
    done = 0.0
    for share, phase in parts:
        done += share
        lengths = tuple(n for n in phase.tokens if n <= batch_tokens) or (batch_tokens,)
        phase = Phase(lengths, phase.min_facts, phase.max_facts)
        schedule += [phase] * (round(done * steps) - len(schedule))
    return schedule


def learning_rate(step: int, steps: int, peak: float, warmup: int = 200) -> float:
    """Linear warm-up, then a cosine down to 2 %."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def forward(
    model: DemoModel, tokens: Tensor, weights: Tensor, learned: Tensor, layout: Layout
) -> tuple[Tensor, Tensor]:
    """The weighted mean next-token loss, and where the likeliest token is right, [M - 1]."""
    logits = model(tokens, learned, layout)[:-1]
    targets, weights = tokens[1:], weights[1:]
    losses = F.cross_entropy(logits.float(), targets, reduction="none")
    return (losses * weights).sum() / weights.sum(), logits.argmax(-1) == targets


def count_recall(right: Tensor, distance: Tensor, digits: int, tally: dict[int, list[int]]) -> None:
    """Adds to tally[bucket] = [answers right in all digits, answers]."""
    starts = (distance >= 0).nonzero()[:, 0]
    starts = starts[starts < len(distance) - digits]
    whole = torch.stack([right[starts - 1 + i] for i in range(digits)]).all(0)
    for bucket, low in zip(DISTANCES, (-1, *DISTANCES)):
        inside = (distance[starts] > low) & (distance[starts] <= bucket)
        tally[bucket][0] += int((whole & inside).sum())
        tally[bucket][1] += int(inside.sum())


def make_optimizer(model: DemoModel, peak: float, fused: bool) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95), fused=fused)


def train(model: DemoModel, stream: BatchStream, args: argparse.Namespace) -> None:
    device = torch.device(args.device)
    step_function = torch.compile(forward) if args.compile else forward
    optimizer = make_optimizer(model, args.lr, fused=device.type == "cuda")
    loader = torch.utils.data.DataLoader(
        stream,
        batch_size=None,
        num_workers=args.workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if args.workers else None,
    )
    layouts: dict[int, Layout] = {}
    tally: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    begin, loss_sum, logged = time.monotonic(), torch.zeros((), device=device), 0
    batch: Batch
    for step, batch in enumerate(loader):
        length = batch.document_tokens
        if length not in layouts:
            layouts[length] = Layout.build(model.config, args.batch_tokens, length, device)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.lr)
        tokens, weights, learned, distance = (
            t.to(device, non_blocking=True)
            for t in (batch.tokens, batch.weights, batch.learned, batch.distance)
        )
        with torch.autocast(device.type, torch.bfloat16):
            loss, right = step_function(model, tokens, weights, learned, layouts[length])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss_sum += loss.detach()
        if step % 20 == 19:
            count_recall(right, distance, stream.code_digits, tally)
        if step % args.log_every == args.log_every - 1 or step == args.steps - 1:
            recall = " ".join(f"<={b}:{r / n:.3f}" for b, (r, n) in tally.items() if n)
            print(
                f"step {step + 1}/{args.steps} loss {loss_sum.item() / (step + 1 - logged):.4f}"
                f" recall {recall} {time.monotonic() - begin:.0f} s",
                flush=True,
            )
            logged = step + 1
            loss_sum.zero_()
            tally.clear()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    demo = Path(__file__).resolve().parent.parent / "mneme-demo"
    parser.add_argument("--output", type=Path, default=demo)
    parser.add_argument("--task", type=Path, default=demo / "recall_task.json")
    parser.add_argument("--steps", type=int, default=22000)
    parser.add_argument("--batch_tokens", type=int, default=65536)
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fillers", type=int, default=100000, help="filler sentences to draw from")
    parser.add_argument("--workers", type=int, default=12, help="processes that write documents")
    parser.add_argument("--log_every", type=int, default=200, help="steps between progress lines")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    begin = time.monotonic()
    task = args.task.read_text()
    grammar = Grammar(args.task)
    tokenizer = tokenizer_builder.build(grammar)
    pieces = PieceTable(grammar, tokenizer, random.Random(args.seed), args.fillers)
    config = ModelConfig(vocab_size=math.ceil(tokenizer.get_vocab_size() / 64) * 64)
    model = DemoModel(config).to(args.device)
    parameters = sum(p.numel() for p in model.parameters())
    print(
        f"{parameters / 1e6:.2f} M parameters, {tokenizer.get_vocab_size()} token ids", flush=True
    )
    schedule = make_schedule(args.steps, args.batch_tokens)
    stream = BatchStream(grammar, pieces, schedule, args.batch_tokens, args.seed)
    train(model, stream, args)
    export.write_checkpoint(args.output, model, tokenizer)
    (args.output / "recall_task.json").write_text(task)
    print(f"wrote {args.output} after {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
