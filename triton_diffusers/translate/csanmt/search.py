"""Beam search with ModelScope's scores and stopping rule."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from triton_diffusers.translate.csanmt.config import Architecture
from triton_diffusers.translate.csanmt.network import CsanmtNetwork, DecoderState, Encoded
from triton_diffusers.translate.csanmt.tokenizer import END

_MIN_SCORE = torch.finfo(torch.float32).min


class _Beams:
    """Translations in progress: rows are sources, columns their best hypotheses."""

    def __init__(self, source: Encoded, limits: Tensor, width: int) -> None:
        rows = len(limits)
        self.numbers = torch.arange(rows)  # the source of each row
        self.limits = limits
        self.source = source.select(torch.arange(rows).repeat_interleave(width))
        self.state = DecoderState()
        self.alive = torch.zeros(rows, width, 0, dtype=torch.long)
        self.log_probs = torch.tensor([[0.0] + [_MIN_SCORE] * (width - 1)]).repeat(rows, 1)
        self.finished = torch.zeros(rows, width, 0, dtype=torch.long)
        self.scores = torch.full((rows, width), _MIN_SCORE)
        self.is_finished = torch.zeros(rows, width, dtype=torch.bool)

    def keep(self, rows: Tensor) -> None:
        """Drop all other rows."""
        width = self.alive.shape[1]
        flat = (rows[:, None] * width + torch.arange(width)).flatten()
        self.source = self.source.select(flat)
        self.state.select(flat)
        for name in ("numbers", "limits", "alive", "log_probs", "finished", "scores", "is_finished"):
            setattr(self, name, getattr(self, name)[rows])


@torch.inference_mode()
def search(
    network: CsanmtNetwork, config: Architecture, sources: Sequence[Sequence[int]], limits: Sequence[int]
) -> list[list[int]]:
    """Return a translation of each source, independent of the others and at most its limit of tokens long."""
    longest = max(map(len, sources))
    tokens = torch.tensor([[*source, *[END] * (longest - len(source))] for source in sources])
    bounds = torch.tensor(limits).clamp(max=config.max_decoded_trg_len)
    beams = _Beams(network.encode(tokens), bounds, config.beam_size)
    found: dict[int, list[int]] = {}
    time = 0
    while len(beams.numbers):
        done = (time >= beams.limits) | _is_decided(beams, config)
        for row in done.nonzero()[:, 0].tolist():
            found[int(beams.numbers[row])] = _best(beams, row)
        if done.any():
            beams.keep((~done).nonzero()[:, 0])
        if len(beams.numbers):
            _step(network, config, beams, time)
        time += 1
    return [found[number] for number in range(len(sources))]


def _is_decided(beams: _Beams, config: Architecture) -> Tensor:
    """Return for each row True if no live hypothesis can become better than the worst finished one."""
    attainable = beams.log_probs[:, 0] / ((5.0 + config.max_decoded_trg_len) / 6.0) ** config.lp_rate
    worst = (beams.scores * beams.is_finished).amin(1)
    return torch.logical_and(worst > attainable, beams.is_finished.any(1))


def _best(beams: _Beams, row: int) -> list[int]:
    sequences = beams.finished if beams.is_finished[row].any() else beams.alive
    best: list[int] = sequences[row, 0].tolist()
    return best[: best.index(END)] if END in best else best


def _step(network: CsanmtNetwork, config: Architecture, beams: _Beams, time: int) -> None:
    """Extend every hypothesis by a token."""
    rows, width = beams.log_probs.shape
    last = beams.alive[:, :, -1].flatten() if time else None
    step = network.decode(beams.source, last, beams.state).view(rows, width, -1)
    penalty = ((5.0 + time + 1) / 6.0) ** config.lp_rate
    scores = ((beams.log_probs[:, :, None] + step) / penalty).flatten(1)
    # Twice as many as are kept: at most half of them end here.
    scores, candidates = scores.topk(2 * width)
    parents, symbols = candidates // step.shape[-1], candidates % step.shape[-1]
    ends = symbols == END

    sequences = torch.cat([_gather(beams.alive, parents), symbols[:, :, None]], 2)
    padded = torch.nn.functional.pad(beams.finished, (0, 1), value=END)
    all_scores = torch.cat([beams.scores, torch.where(ends, scores, _MIN_SCORE)], 1)
    beams.scores, kept = all_scores.topk(width)
    beams.finished = _gather(torch.cat([padded, sequences], 1), kept)
    beams.is_finished = torch.cat([beams.is_finished, ends], 1).gather(1, kept)

    alive_scores, kept = torch.where(ends, _MIN_SCORE, scores).topk(width)
    beams.alive = _gather(sequences, kept)
    beams.log_probs = alive_scores * penalty
    flat = (torch.arange(rows)[:, None] * width + parents.gather(1, kept)).flatten()
    beams.state.select(flat)


def _gather(sequences: Tensor, columns: Tensor) -> Tensor:
    """Return columns of (rows, columns, tokens), chosen separately for each row."""
    return sequences.gather(1, columns[:, :, None].expand(-1, -1, sequences.shape[2]))
