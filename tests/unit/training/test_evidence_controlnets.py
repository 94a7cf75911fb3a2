import pytest
import torch

from training.emoji.evidence_controlnets import block_distance, edge_f1, measure


def lines(*columns: int) -> torch.Tensor:
    """Vertical lines, [1, 32, 32]."""
    edges = torch.zeros(1, 32, 32)
    edges[:, :, list(columns)] = 1.0
    return edges


def test_edges_within_the_tolerance_are_met() -> None:
    assert edge_f1(lines(10), lines(10), 1).item() == pytest.approx(1.0)
    assert edge_f1(lines(10), lines(11), 1).item() == pytest.approx(1.0)
    assert edge_f1(lines(10), lines(12), 1).item() == 0.0
    assert edge_f1(lines(10), lines(12), 2).item() == pytest.approx(1.0)


def test_missed_and_needless_edges_both_count() -> None:
    # Half of the wanted is drawn, all that is drawn is wanted: 2 · 1 · 0.5 / 1.5.
    assert edge_f1(lines(4), lines(4, 20), 1).item() == pytest.approx(2 / 3)
    assert edge_f1(lines(4, 20), lines(4), 1).item() == pytest.approx(2 / 3)
    assert edge_f1(torch.zeros(1, 32, 32), lines(4), 1).item() == 0.0
    assert edge_f1(lines(4), torch.zeros(1, 32, 32), 1).item() == 0.0


def test_each_picture_has_its_own_figure() -> None:
    drawn, wanted = torch.cat([lines(10), lines(10)]), torch.cat([lines(10), lines(20)])
    assert edge_f1(drawn, wanted, 1).tolist() == pytest.approx([1.0, 0.0])


def test_block_distance_is_of_mean_colours() -> None:
    black = torch.full((1, 3, 64, 64), -1.0)
    assert block_distance(black, -black).item() == pytest.approx(441.7, abs=0.1)
    half = black.clone()
    half[:, :, :, :32] = 1.0
    assert block_distance(half, black).item() == pytest.approx(441.7 / 2, abs=0.1)
    # A chequered block has the colour of a grey one.
    chequered = black.clone()
    chequered[..., ::2] = 1.0
    assert block_distance(chequered, torch.zeros_like(black)).item() == pytest.approx(0.0, abs=1e-3)


def test_a_picture_measures_as_itself() -> None:
    picture = torch.full((2, 3, 128, 128), -1.0)
    picture[..., 30:90, 40:100] = 1.0
    assert measure(picture, picture) == {"edge_f1_within_1": 1.0, "edge_f1_within_2": 1.0, "block_distance": 0.0}
    moved = measure(picture.roll(12, 3), picture)
    assert 0.0 < moved["edge_f1_within_1"] < 0.7
    assert moved["block_distance"] > 10.0
