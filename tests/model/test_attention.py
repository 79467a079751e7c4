"""Attention over rectangles equals a loop over queries: whatever is read, biased or dropped."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import research.model.attention as attention_module
import research.model.kernels.tiled_attention as tiles_module
from research import rectangles as rectangles_module
from research.model.attention import attention, over_rectangles
from research.packed import Packed
from research.rectangles import Rectangle, Rectangles, one_rectangle

HEADS, WIDTH = 2, 3
# Tokens:        4 | 8 9 | 1 2 3 | 5 6 7 8 9, numbers 0 to 10.
ROWS = {
    "ragged": [[], [4], [8, 9], [1, 2, 3], [], [5, 6, 7, 8, 9], []],
    "full": [[1, 2], [3, 4], [5, 6]],
    "single": [[5]],
    "longer than a vector": [list(range(19)), [3], list(range(17))],
}
READ = {
    "all": None,
    "all by number": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    "the newest": [0, 2, 5, 10],
    "some": [1, 2, 4, 8, 9],
    "one": [7],
    "none": [],
    "in another order": [9, 0, 4, 3],
    "some more than once": [3, 10, 3, 3, 1, 10],
}


@pytest.fixture(params=[(1, 64), (20, 64), (1 << 18, 2), (1 << 18, 64)], ids=str)
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of several sizes."""
    monkeypatch.setattr(tiles_module, "SCORES_TILE", request.param[0])
    monkeypatch.setattr(tiles_module, "TRIANGULAR_QUERIES", request.param[1])


@pytest.fixture(params=["one rectangle", "many rectangles", "as on an accelerator"])
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All sequences together, those of one length each, and the layout that needs no host."""

    def unhosted(packed: Packed, read_P: Tensor | None) -> Rectangles:
        return replace(one_rectangle(packed), order=read_P)

    if request.param == "as on an accelerator":
        monkeypatch.setattr(rectangles_module, "by_length", unhosted)
    cost = 10**9 if request.param == "one rectangle" else 0
    monkeypatch.setattr(rectangles_module, "RECTANGLE_COST", cost)


def qkv(tokens: int) -> Tensor:
    draws = torch.Generator().manual_seed(4)
    shape = (tokens, 3, HEADS, WIDTH)
    return torch.randn(shape, generator=draws, dtype=torch.float64).requires_grad_()


def numbers(read: list[int] | None) -> Tensor | None:
    return None if read is None else torch.tensor(read, dtype=torch.int64)


def with_gradients(output: Tensor, *parameters: Tensor) -> list[Tensor]:
    """The output, and the gradients of a fixed weighing of it."""
    weights = torch.sin(torch.arange(output.numel(), dtype=torch.float64)).view_as(output)
    grads = torch.autograd.grad((output * weights).sum(), parameters)
    return [output.detach(), *grads]


# Sums of at most 19 terms in float64, in another order.
def assert_twins(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def loop(
    qkv_T3HK: Tensor, rows: list[list[int]], causal: bool, read: list[int] | None = None,
    slope_H: Tensor | None = None, kept: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A sequence, a query and a head at a time; `kept` [T, H, longest] are dropout's scales.

    With slopes, each step between query and key costs the head's slope.
    """
    outputs, first = [], 0
    for row in rows:
        q, k, v = qkv_T3HK[first : first + len(row)].unbind(1)
        for place in range(len(row)):
            visible = place + 1 if causal else len(row)
            for head in range(HEADS):
                scores = k[:visible, head] @ q[place, head] / math.sqrt(WIDTH)
                if slope_H is not None:
                    distances = (torch.arange(visible) - place).abs()
                    scores = scores - slope_H[head] * distances
                shares = torch.exp(scores) / torch.exp(scores).sum()
                if kept is not None:
                    shares = shares * kept[first + place, head, :visible]
                outputs.append(shares @ v[:visible, head])
        first += len(row)
    outputs_THK = torch.stack(outputs).view(-1, HEADS, WIDTH)
    return outputs_THK if read is None else outputs_THK[torch.tensor(read, dtype=torch.int64)]


class Slopes:
    """A bias as of ALiBi (Press et al. 2022), with slopes that learn."""

    def __init__(self) -> None:
        self.slope_H = torch.tensor([0.3, 1.1], dtype=torch.float64, requires_grad=True)

    def __call__(self, rectangle: Rectangle) -> Tensor:
        return -self.slope_H[:, None, None] * rectangle.distances_BQL.abs()[:, None]


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rows", ROWS)
def test_value_and_gradients_equal_a_loop(rows: str, causal: bool, biased: bool) -> None:
    packed, slopes = Packed.from_lists(ROWS[rows]), Slopes()
    x = qkv(packed.num_tokens)
    parameters = (x, slopes.slope_H) if biased else (x,)
    bias = slopes if biased else None
    ours = attention(x, packed, causal=causal, dropout=0.0, bias=bias)
    theirs = loop(x, ROWS[rows], causal, slope_H=slopes.slope_H if biased else None)
    assert_twins(with_gradients(ours, *parameters), with_gradients(theirs, *parameters))


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("read", READ)
def test_reading_some_tokens_gives_just_their_outputs(read: str, causal: bool) -> None:
    packed = Packed.from_lists(ROWS["ragged"])
    x, read_P = qkv(packed.num_tokens), numbers(READ[read])
    ours = attention(x, packed, causal=causal, dropout=0.0, read_P=read_P)
    assert ours.shape == (packed.num_tokens if READ[read] is None else len(READ[read]), 2, 3)
    theirs = loop(x, ROWS["ragged"], causal, READ[read])
    assert_twins(with_gradients(ours, x), with_gradients(theirs, x))


def keep_all(kept: Tensor, probability: float) -> float:
    kept.fill_(1)
    return 1.0


@pytest.mark.usefixtures("tile", "layout")
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("read", ["all", "some more than once"])
@pytest.mark.parametrize("rows", ["ragged", "longer than a vector"])
def test_tiles_equal_a_loop_when_nothing_falls(
    rows: str, read: str, causal: bool, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles_module, "fill_keep_mask", keep_all)
    packed, slopes = Packed.from_lists(ROWS[rows]), Slopes()
    x, read_P = qkv(packed.num_tokens), numbers(READ[read])
    parameters = (x, slopes.slope_H) if biased else (x,)
    bias = slopes if biased else None
    ours = attention(x, packed, causal=causal, dropout=0.5, read_P=read_P, bias=bias)
    theirs = loop(x, ROWS[rows], causal, READ[read], slopes.slope_H if biased else None)
    assert_twins(with_gradients(ours, *parameters), with_gradients(theirs, *parameters))


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize("read", ["all", "some"])
@pytest.mark.parametrize("causal", [False, True])
def test_value_and_gradients_equal_a_loop_under_the_same_draws(causal: bool, read: str) -> None:
    rows = [[1, 2, 3], [4], [5, 6], [7, 8, 9], [7, 8]]
    packed, x, read_P = Packed.from_lists(rows), qkv(11), numbers(READ[read])

    def dropped(x_T3HK: Tensor) -> Tensor:
        torch.manual_seed(3)
        return attention(x_T3HK, packed, causal=causal, dropout=0.4, read_P=read_P)

    # Values of 1 in the place of the key's number: an output shows its weights, K = 3 at most.
    shown = x.detach().clone()
    shown[:, 2] = torch.eye(3, dtype=torch.float64)[packed.positions_T][:, None]
    kept = torch.zeros(11, HEADS, 3, dtype=torch.float64)
    tokens_P = torch.arange(11) if read_P is None else read_P
    # 0.4 is rounded to 26214 / 65536.
    kept[tokens_P] = (dropped(shown) != 0).double() * (65536 / 39322)
    assert 0 < (kept[tokens_P] == 0).double().mean() < 1
    theirs = loop(x, rows, causal, READ[read], kept=kept)
    assert_twins(with_gradients(dropped(x), x), with_gradients(theirs, x))


@pytest.mark.parametrize("causal", [False, True])
def test_dropped_attention_has_the_mean_of_attention(causal: bool) -> None:
    torch.manual_seed(5)
    copies = 20_000
    x = qkv(3).detach().repeat(copies, 1, 1, 1)
    packed = Packed.from_lists([[1, 2, 3]] * copies)
    dropped = attention(x, packed, causal=causal, dropout=0.3).view(copies, -1)
    whole = attention(x[:3], Packed.from_lists([[1, 2, 3]]), causal=causal, dropout=0.0)
    errors = dropped.std(0) / math.sqrt(copies)
    # 18 means at five standard errors each.
    assert ((dropped.mean(0) - whole.flatten()).abs() <= 5 * errors).all()


def test_each_head_and_sequence_drops_weights_of_its_own() -> None:
    torch.manual_seed(7)
    packed = Packed.from_lists([[1, 2, 3, 4]] * 10)
    output = attention(torch.ones(40, 3, HEADS, WIDTH), packed, causal=False, dropout=0.5)
    # Equal weights on equal values: an output tells how many of its four weights were kept.
    rows = output[..., 0].view(10, 4, HEADS).transpose(1, 2).reshape(20, 4)
    assert len({tuple(row) for row in rows.tolist()}) > 15


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("read", [None, []])
@pytest.mark.parametrize("rows", [[], [[]]])
def test_nothing_to_attend_to_gives_nothing(
    rows: list[list[int]], read: list[int] | None, dropout: float
) -> None:
    x, packed = qkv(0), Packed.from_lists(rows)
    output = attention(x, packed, causal=True, dropout=dropout, read_P=numbers(read))
    assert output.shape == (0, HEADS, WIDTH)
    assert with_gradients(output, x)[1].shape == (0, 3, HEADS, WIDTH)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_more_sequences_than_a_gpu_takes_at_once_change_nothing(
    causal: bool, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, x = Packed.from_lists([[1], [2, 3], [4, 5, 6], [7, 8], [9]]), qkv(9)
    results = []
    for most in (2, 1 << 16):
        monkeypatch.setattr(attention_module, "MAX_SEQUENCES", most)
        bias = Slopes() if biased else None
        output = attention(x, packed, causal=causal, dropout=0.0, bias=bias)
        results.append(with_gradients(output, x))
    assert_twins(*results)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("read", [None, [3, 0, 3]])
def test_no_tensor_of_an_accelerator_is_read_by_the_host(
    read: list[int] | None, causal: bool
) -> None:
    # What is on this device has a shape and no values: reading one raises.
    device = torch.device("meta")
    packed = Packed.from_lists([[1, 2, 3], [], [4]]).to(device)
    x = torch.empty(4, 3, HEADS, WIDTH, device=device, requires_grad=True)
    read_P = None if read is None else torch.tensor(read).to(device)
    output = attention(x, packed, causal=causal, dropout=0.5, read_P=read_P)
    assert output.shape == (4 if read is None else 3, HEADS, WIDTH)
    output.sum().backward()


def silu_core(q_BQHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, rectangle: Rectangle) -> Tensor:
    """HSTU's (Zhai et al. 2024, eq. 2) with a bias from times and positions, over the length."""
    scores_BHQL = torch.einsum("bqhk,blhk->bhql", q_BQHK, k_BLHK)
    times_BL, positions_BL = rectangle.fields["time"], rectangle.positions_BL
    times_BQ = times_BL.gather(1, rectangle.places_BQ)
    gaps_BQL = (times_BQ[:, :, None] - times_BL[:, None]).double()
    bias_BQL = gaps_BQL / 10 + positions_BL[:, None].double() / 7
    visible_BQL = rectangle.visible(causal=True)
    assert visible_BQL is not None
    weights = F.silu(scores_BHQL + bias_BQL[:, None]) * visible_BQL[:, None]
    lengths_B = rectangle.lengths_B
    if lengths_B is None:
        lengths_B = torch.full((len(q_BQHK),), rectangle.slots_BL.shape[1])
    mixed = torch.einsum("bhql,blhk->bqhk", weights, v_BLHK)
    return mixed / lengths_B.clamp(min=1)[:, None, None, None]


def silu_loop(x_T3HK: Tensor, packed: Packed, read: list[int]) -> Tensor:
    """The same, a query at a time."""
    times_T = packed.fields["time"]
    starts, outputs = packed.offsets.tolist(), []
    for token in read:
        number = max(s for s, start in enumerate(starts) if start <= token)
        first, length = starts[number], starts[number + 1] - starts[number]
        total = torch.zeros(HEADS, WIDTH, dtype=torch.float64)
        for key in range(first, token + 1):
            scores_H = (x_T3HK[token, 0] * x_T3HK[key, 1]).sum(-1)
            gap = (times_T[token] - times_T[key]).item()
            weights_H = F.silu(scores_H + gap / 10 + packed.positions_T[key].item() / 7)
            total = total + weights_H[:, None] * x_T3HK[key, 2]
        outputs.append(total / length)
    return torch.stack(outputs)


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize("read", [None, [9, 0, 4, 3, 3]])
def test_a_core_of_a_block_own_sees_places_lengths_positions_and_fields(
    read: list[int] | None,
) -> None:
    plain = Packed.from_lists(ROWS["ragged"])
    # Histories that go on from elsewhere, with a time a token.
    times_T = torch.tensor([7, 1, 5, 2, 3, 8, 0, 4, 4, 9, 30])
    packed = replace(plain, positions_T=plain.positions_T + 2, fields={"time": times_T})
    x = qkv(11)
    ours = over_rectangles(silu_core, x, packed, numbers(read))
    theirs = silu_loop(x, packed, list(range(11)) if read is None else read)
    assert_twins(with_gradients(ours, x), with_gradients(theirs, x))


def test_a_core_that_gives_its_values_back_shows_zeros_in_empty_slots() -> None:
    def summed(q_BQHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, rectangle: Rectangle) -> Tensor:
        return v_BLHK.sum(1, keepdim=True).expand_as(q_BQHK)

    x = torch.ones(3, 3, 1, 1)
    output = over_rectangles(summed, x, Packed.from_lists([[1, 2], [3]]))
    assert output.flatten().tolist() == [2.0, 2.0, 1.0]
