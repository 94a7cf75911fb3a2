"""Training: cross-entropy on phrases drawn for each batch."""

# mypy: allow-untyped-calls

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.nn import functional
from tqdm import tqdm
from transformers import MarianMTModel

from training.emoji.run import Run
from training.emoji.schedule import warmup_cosine
from training.translator.model import Pieces
from training.translator.phrases import Phrase, PhraseBook

BATCH = 96
PEAK_RATE = 2e-3
WARMUP = 300
SMOOTHING = 0.05
POOL = 8
"""Batches that are drawn together, and sorted by length, so that little of each is padding."""
DECAY = 0.995
"""Of the moving average of the weights, which is what is exported."""
LOG_EVERY = 50
SAVE_EVERY = 100


def train(run: Run, model: MarianMTModel, pieces: Pieces, book: Callable[[int], PhraseBook], iterations: int) -> None:
    """Train `model`, resuming from the run's checkpoint, up to `iterations` batches.

    `book(seed)` gives the phrases of a part of training; a part that is begun again draws the same ones.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    average = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    begin = 0
    if state := run.load():
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, begin = state["average"], state["step"]
    model.train()
    batches = _batches(book(begin), begin)
    losses: list[float] = []
    started = time.perf_counter()
    bar = tqdm(total=iterations, initial=begin, unit="batch")
    for step in range(begin, iterations):
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(step, iterations, PEAK_RATE, WARMUP)
        loss = _loss(model, pieces, next(batches))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        _average(model, average, min(DECAY, (step + 1) / (step + 10)))
        losses.append(loss.item())
        bar.update()
        done = step + 1
        if done % LOG_EVERY == 0:
            mean = sum(losses) / len(losses)
            run.log(step=done, loss=round(mean, 4), seconds=round(time.perf_counter() - started, 1))
            bar.set_postfix(loss=f"{mean:.3f}")
            losses.clear()
        if done % SAVE_EVERY == 0 or done == iterations or run.stopping:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average, "step": done}
            run.save(state)
        if run.stopping:
            break
    bar.close()


def _batches(book: PhraseBook, seed: int) -> Iterator[Sequence[Phrase]]:
    """Batches of phrases of about one length, without end."""
    order = random.Random(seed)
    while True:
        pool = sorted((book.taught() for _ in range(BATCH * POOL)), key=lambda phrase: len(phrase.english[0]))
        batches = [pool[begin : begin + BATCH] for begin in range(0, len(pool), BATCH)]
        order.shuffle(batches)
        yield from batches


def _loss(model: MarianMTModel, pieces: Pieces, phrases: Sequence[Phrase]) -> torch.Tensor:
    source = _padded([pieces.source(phrase.chinese) for phrase in phrases], pieces.padding)
    target = _padded([pieces.target(phrase.english[0]) for phrase in phrases], pieces.padding)
    start = torch.full((len(target), 1), pieces.padding)
    before = torch.cat([start, target[:, :-1]], dim=1)
    states = model.model(
        input_ids=source,
        attention_mask=(source != pieces.padding).long(),
        decoder_input_ids=before,
        use_cache=False,
    ).last_hidden_state
    told = target != pieces.padding
    logits = states[told] @ model.get_input_embeddings().weight[: pieces.outputs].T
    return functional.cross_entropy(logits, target[told], label_smoothing=SMOOTHING)


def _padded(rows: Sequence[Sequence[int]], padding: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[padding] * (longest - len(row))] for row in rows])


@torch.no_grad()
def _average(model: MarianMTModel, average: dict[str, torch.Tensor], decay: float) -> None:
    padding = model.get_input_embeddings().padding_idx
    model.get_input_embeddings().weight[padding] = 0  # decoding begins with it, and Marian begins with nothing
    for name, weight in model.named_parameters():
        average[name].lerp_(weight, 1.0 - decay)
