"""The slow, obvious twins: one sequence, one token, one negative at a time, from the papers.

Nothing here is batched, padded or packed. Weights are read from the modules under test, so that
gradients of both sides arrive at the same parameters; all arithmetic is written out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from research.data.catalogue import Catalogue, Histories
from research.data.negatives import NegativesConfig
from research.model.gru import GRUEncoder
from research.model.positions import LearnedPositions
from research.model.relative_positions import RelativePositions
from research.model.transformer import TransformerEncoder
from research.objectives.head import Head
from research.objectives.losses import (
    BayesianPersonalizedRanking,
    BinaryCrossEntropy,
    FullSoftmax,
    GeneralizedBCE,
    ItemLossConfig,
    SampledSoftmax,
)
from research.objectives.masking import MaskItems
from research.objectives.sp import CutSegment
from research.randomness import seed_of
from tests.model.reference_blocks import Told, activation, dense, layer_norm, run_block

WORD = 2**64


def random_bits(state: int, counter: int) -> int:
    """Output number `counter` of splitmix64 (Steele, Lea and Flood 2014) started at `state`."""
    z = (state + (counter + 1) * 0x9E3779B97F4A7C15) % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def random_uniform(bits: int) -> float:
    """In [0, 1), from the upper 53 bits."""
    return (bits >> 11) / 2**53


def random_below(bits: int, high: int) -> int:
    """In 0..high-1."""
    return int(random_uniform(bits) * high)


def encode(
    encoder: TransformerEncoder, items: Sequence[int], causal: bool,
    segments: Sequence[int] | None = None, attributes: Sequence[Sequence[int]] = (),
    times: Sequence[int] | None = None,
) -> Tensor:  # fmt: skip
    """Hidden states [L, D] of one sequence without dropout.

    `attributes` are each item's, where the encoder reads them; the mask has none (SASRec_F).
    `times` are the tokens' seconds, where its blocks or its positions read them.
    """
    config = encoder.config
    states = []
    for place, item in enumerate(items):
        state = encoder.item_table.weight[item]
        for attribute in attributes[item] if item < len(attributes) else ():
            assert encoder.item_table.attributes is not None
            state = state + encoder.item_table.attributes.attribute_table.weight[attribute]
        if config.embedding_scale:
            state = state * math.sqrt(config.width)
        if isinstance(config.positions, LearnedPositions):
            oldest = config.positions.count_from == "oldest"
            row = place if oldest else len(items) - 1 - place
            state = state + encoder.positions.weight[row]
        if config.segments:
            state = state + encoder.segment_table.weight[segments[place] if segments else 0]
        states.append(state)
    if not states:
        return encoder.item_table.weight[:0]
    x = torch.stack(states)
    if config.embedding_norm:
        x = layer_norm(x, encoder.embedding_norm)
    relative = isinstance(config.positions, RelativePositions)
    told = Told(times, encoder.positions.weights if relative else None)
    for block in encoder.blocks:
        x = run_block(block, x, causal, told)
    return layer_norm(x, encoder.final_norm) if config.final_norm else x


def recurrent_states(encoder: GRUEncoder, items: Sequence[int]) -> Tensor:
    """GRU4Rec's states [L, D] of one sequence without dropout, a token and a gate at a time.

    Cho et al. 2014, eq. 5-8, but for the reset gate, which torch multiplies after the product.
    """
    inputs = [encoder.item_table.weight[item] for item in items]
    for layer in encoder.layers:
        state, states = torch.zeros(encoder.config.hidden_width, dtype=torch.float64), []
        for x in inputs:
            read = gate_products(layer, "ih", x)
            carried = gate_products(layer, "hh", state)
            reset = sigmoid(read[0] + carried[0])
            kept = sigmoid(read[1] + carried[1])
            new = torch.tanh(read[2] + reset * carried[2])
            state = (1 - kept) * new + kept * state
            states.append(state)
        inputs = states
    if encoder.config.projection:
        inputs = [dense(state, encoder.projection) for state in inputs]
    return torch.stack(inputs) if inputs else encoder.item_table.weight[:0]


def gate_products(layer: torch.nn.GRU, name: str, x: Tensor) -> list[Tensor]:
    """W x + b of the gates for reset, update and new state, in torch's order."""
    parameters = dict(layer.named_parameters())
    products = []
    for gate in range(3):
        rows = slice(gate * layer.hidden_size, (gate + 1) * layer.hidden_size)
        product = parameters[f"weight_{name}_l0"][rows] @ x
        if layer.bias:
            product = product + parameters[f"bias_{name}_l0"][rows]
        products.append(product)
    return products


def head_scores(
    head: Head, encoder: TransformerEncoder, hidden_D: Tensor, mask: bool = False
) -> list[Tensor]:
    """The score of every item for one state (BERT4Rec, eq. 7), and with `mask` that of row V.

    With special classes those of the mask and of the padding row follow the items' (S3-Rec's code).
    """
    if head.config.transform != "none":
        hidden_D = dense(hidden_D, head.dense)
    if head.config.transform == "nonlinear":
        hidden_D = layer_norm(activation(hidden_D, head.config.activation), head.norm)
    own = head.config.table == "own"
    table_VD = head.item_table.weight if own else encoder.item_table.weight
    if head.config.similarity == "cosine":
        hidden_D = hidden_D / torch.sqrt((hidden_D * hidden_D).sum())
    hidden_D = hidden_D / head.config.temperature
    rows = [table_VD[item] for item in range(encoder.num_items)]
    if mask or head.config.special_classes:
        rows.append(encoder.item_table.weight[encoder.num_items])
    if head.config.special_classes:
        rows.append(head.padding_row[0])
    if head.config.similarity == "cosine":
        rows = [row / torch.sqrt((row * row).sum()) for row in rows]
    scores = [(row * hidden_D).sum() for row in rows]
    if head.item_bias is None:
        return scores
    return [score + bias for score, bias in zip(scores, head.item_bias, strict=True)]


def log_sigmoid(x: Tensor) -> Tensor:
    """log(1 / (1 + exp(-x))); fine for the moderate x of the tests."""
    return -torch.log1p(torch.exp(-x))


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + torch.exp(-x))


def item_loss(
    config: ItemLossConfig,
    scores: list[Tensor],
    target: int,
    negatives: list[int],
    log_q: list[float],
    num_items: int,
) -> Tensor:
    """The loss of one token, as each paper has it."""
    right = scores[target]
    if isinstance(config, FullSoftmax):
        total = sum(torch.exp(score) for score in scores)
        spread = config.label_smoothing / num_items
        labels = [(item == target) * (1 - config.label_smoothing) for item in range(num_items)]
        return -sum(
            (label + spread) * torch.log(torch.exp(score) / total)
            for label, score in zip(labels, scores)
        )
    if isinstance(config, SampledSoftmax) and config.corrected:
        return corrected_softmax(
            right, math.exp(log_q[target]),
            [(scores[item], math.exp(log_q[item])) for item in negatives if item != target],
        )  # fmt: skip
    if isinstance(config, SampledSoftmax):
        corrected = [scores[item] - config.log_q * log_q[item] for item in [target, *negatives]]
        return -torch.log(torch.exp(corrected[0]) / sum(torch.exp(each) for each in corrected))
    wrong = [scores[item] for item in negatives]
    if isinstance(config, BinaryCrossEntropy):  # SASRec, eq. 6
        if config.prior_shift:
            right, *wrong = [score - math.log(len(negatives)) for score in (right, *wrong)]
        return -log_sigmoid(right) - sum(log_sigmoid(-score) for score in wrong)
    if isinstance(config, GeneralizedBCE):  # gSASRec, eq. 11-13
        alpha = len(negatives) / (len(scores) - 1)
        t = config.calibration
        beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
        if config.prior_shift:  # the logit of the prior
            right, *wrong = [score + math.log(beta / len(negatives)) for score in (right, *wrong)]
        terms = [beta * log_sigmoid(right), *(log_sigmoid(-score) for score in wrong)]
        return -sum(terms) / (len(negatives) + 1)
    assert isinstance(config, BayesianPersonalizedRanking)
    if config.inner_sigmoid:  # S3-Rec's code
        right, wrong = sigmoid(right), [sigmoid(score) for score in wrong]
    return -sum(log_sigmoid(right - score) for score in wrong) / len(negatives)


def corrected_softmax(right: Tensor, q: float, others: list[tuple[Tensor, float]]) -> Tensor:
    """Khrylchenko et al. 2025: a target's loss against (score, q) of each sampled other item."""
    if not others:
        return 0.0 * right
    weights = [torch.exp(score) / (share / (1 - q)) for score, share in others]
    probability = torch.exp(right) / (torch.exp(right) + sum(weights) / len(weights))
    return -(1 - probability.item()) * torch.log(torch.exp(right) / sum(weights))


def draw_negatives(
    config: NegativesConfig,
    catalogue: Catalogue,
    state: int,
    user: int,
    number: int,
    window: Collection[int] = (),
) -> list[int]:
    """Draw items one by one for a row of `user` and `window`; an excluded one is drawn again."""
    counts = [1] * (catalogue.num_items + config.include_mask)
    if config.distribution == "popularity":
        counts = catalogue.training.counts_V.tolist()
    urn = [item for item, count in enumerate(counts) for _ in range(count)]
    excluded: Collection[int] = {
        "training": history_of(catalogue.training, user),
        "window": window,
        "history": history_of(catalogue.full_histories, user),
        "nothing": (),
    }[config.exclude]
    drawn = []
    for column in range(number):
        stream = random_bits(state, column)
        item = urn[random_below(stream, len(urn))]
        attempt = 0
        while item in excluded:
            stream_again = random_bits(stream, attempt)
            item = urn[random_below(stream_again, len(urn))]
            attempt += 1
        drawn.append(item)
    return drawn


def history_of(histories: Histories, user: int) -> list[int]:
    """The items of one user, oldest first."""
    items: list[int] = []
    for owner, start, stop in zip(
        histories.ranges.users, histories.ranges.starts, histories.ranges.stops, strict=True
    ):
        if owner == user:
            items += histories.corpus_items[start:stop].tolist()
    return items


def mask_items(
    config: MaskItems, window: Sequence[int], state: int, num_items: int, length: int
) -> tuple[list[int], list[int]]:
    """(what the encoder sees, places picked) of one window (BERT4Rec, section 3.6)."""
    seen = list(window[-length:])
    if not seen:
        return [], []
    newest = len(seen) - 1
    row = random_bits(state, seed_of("mask"))
    streams = [random_bits(row, newest - place) for place in range(len(seen))]
    draws = [random_uniform(random_bits(stream, 0)) for stream in streams]
    by_draw = sorted(range(len(seen)), key=lambda place: draws[place])
    if config.count == "bernoulli":
        picked = {place for place in by_draw if draws[place] < config.rate}
    else:
        most = config.max_picked if config.max_picked is not None else len(seen)
        picked = set(by_draw[: min(most, max(1, round(config.rate * len(seen))))])
    luck = random_uniform(random_bits(row, seed_of("row")))
    if luck < config.mask_last_share:
        picked.add(newest)
    if config.at_least_one:
        picked = picked or {by_draw[0]}
    if luck >= 1 - config.last_only_share:
        picked = {newest}
    for place in picked:
        fate = random_uniform(random_bits(streams[place], 1))
        if fate < config.random_share:
            seen[place] = random_below(random_bits(streams[place], 2), num_items)
        elif fate < 1 - config.keep_share:
            seen[place] = num_items
    return seen, sorted(picked)


def next_item_shift(window: Sequence[int], length: int) -> tuple[list[int], list[int]]:
    """(inputs, targets) of one window (SASRec, section 3)."""
    kept = list(window[-(length + 1) :])
    return kept[:-1], kept[1:]


def attributes_of(catalogue: Catalogue, item: int) -> list[int]:
    """The attributes of one item."""
    bounds = catalogue.attribute_offsets.tolist()
    return catalogue.attribute_ids[bounds[item] : bounds[item + 1]].tolist()


def attribute_loss(projected_D: Tensor, rows: Sequence[Tensor], own: Collection[int]) -> Tensor:
    """One token's binary cross-entropies, an attribute at a time (S3-Rec, eq. 4 and 6).

    `rows` are the embeddings of the attributes, in the order of their ids.
    """
    terms = []
    for attribute, row_D in enumerate(rows):
        score = (row_D * projected_D).sum()
        terms.append(-log_sigmoid(score if attribute in own else -score))
    return torch.stack(terms).sum()


def cut_segment(
    config: CutSegment, catalogue: Catalogue, window: Sequence[int], user: int, state: int,
    length: int,
) -> tuple[list[int], list[int], list[int]] | None:  # fmt: skip
    """(context, true segment, foreign segment) of one window as the encoder sees them, or None.

    S3-Rec, section 4.2.4. A row that cannot be cut takes no part, or as itself three times.
    """
    row, mask = list(window[-length:]), catalogue.num_items
    if len(row) < 2:
        return (row, row, row) if config.short_rows and row else None
    stream = random_bits(state, seed_of("segment"))
    training = [history_of(catalogue.training, each) for each in range(catalogue.num_users)]
    others = [each for each in range(catalogue.num_users) if each != user]
    # The longest first, the lower id first among equals.
    others.sort(key=lambda each: (-len(training[each]), each))
    most = len(row) // 2
    if config.foreign == "training":
        most = min(most, len(training[others[0]]))
    size = 1 + random_below(random_bits(stream, 0), most)
    start = random_below(random_bits(stream, 1), len(row) - size + 1)
    if config.foreign == "training":
        enough = [each for each in others if len(training[each]) >= size]
        pool = training[enough[random_below(random_bits(stream, 2), len(enough))]]
        first = random_below(random_bits(stream, 3), len(pool) - size + 1)
    else:
        users = range(catalogue.num_users)
        pool = [item for each in users for item in history_of(catalogue.full_histories, each)]
        first = random_below(random_bits(stream, 2), len(pool) - size + 1)
    true, foreign = row[start : start + size], pool[first : first + size]
    before, after = [mask] * start, [mask] * (len(row) - start - size)
    context = row[:start] + [mask] * size + row[start + size :]
    if config.placement == "alone":
        return context, true, foreign
    return context, before + true + after, before + foreign + after


def segment_loss(
    context_D: Tensor, true_D: Tensor, foreign_D: Tensor, layer: torch.nn.Linear, squashed: bool
) -> Tensor:
    """One row's comparison from three last states (S3-Rec, eq. 7); `squashed` as in its code."""
    context_D = dense(context_D, layer)
    right, wrong = (context_D * true_D).sum(), (context_D * foreign_D).sum()
    if squashed:
        right, wrong = sigmoid(right), sigmoid(wrong)
    return -log_sigmoid(right - wrong)


def adamw_uncorrected(
    parameter: Tensor,
    gradients: Sequence[Tensor],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
) -> Tensor:
    """`AdamWeightDecayOptimizer` of Google's BERT: no bias correction, decoupled decay."""
    mean, square = torch.zeros_like(parameter), torch.zeros_like(parameter)
    for gradient in gradients:
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient * gradient
        update = mean / (torch.sqrt(square) + eps) + decay * parameter
        parameter = parameter - lr * update
    return parameter
