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
from research.model.positions import LearnedPositions
from research.model.rotary import Rotary
from research.model.transformer import TransformerEncoder
from research.model.transformer_block import PostNormBlock, PreNormBlock, SelfAttentionBlock
from research.objectives.head import Head
from research.objectives.item_losses import (
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


def dense(x: Tensor, layer: torch.nn.Linear) -> Tensor:
    """W x + b."""
    return x @ layer.weight.T + layer.bias


def layer_norm(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    """Ba et al. 2016, eq. 3-4, over the last dimension."""
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias


def activation(x: Tensor, name: str) -> Tensor:
    """ReLU, or GELU (Hendrycks and Gimpel 2016) in its erf or tanh form."""
    if name == "relu":
        return torch.where(x > 0, x, torch.zeros_like(x))
    if name == "gelu":
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def attend(block: SelfAttentionBlock, query_LD: Tensor, x_LD: Tensor, causal: bool) -> Tensor:
    """Multi-head attention (Vaswani et al. 2017, eq. 1), a head and a query at a time."""
    width, heads = block.config.width, block.config.heads
    size = width // heads
    weight, bias = block.qkv.weight, block.qkv.bias
    q_LD = query_LD @ weight[:width].T + bias[:width]
    k_LD = x_LD @ weight[width : 2 * width].T + bias[width : 2 * width]
    v_LD = x_LD @ weight[2 * width :].T + bias[2 * width :]
    rows = []
    for place in range(len(x_LD)):
        visible = place + 1 if causal else len(x_LD)
        parts = []
        for head in range(heads):
            columns = slice(head * size, (head + 1) * size)
            query, keys = q_LD[place, columns], list(k_LD[:visible, columns])
            if isinstance(block.config.positions, Rotary):
                base = block.config.positions.base
                query = turned(query, place, base)
                keys = [turned(key, other, base) for other, key in enumerate(keys)]
            scores = torch.stack([(key * query).sum() for key in keys]) / math.sqrt(size)
            shares = torch.exp(scores - scores.max())
            shares = shares / shares.sum()
            parts.append(shares @ v_LD[:visible, columns])
        rows.append(torch.cat(parts))
    mixed_LD = torch.stack(rows)
    if not block.config.output_projection:
        return mixed_LD
    return dense(mixed_LD, block.output)


def turned(row_K: Tensor, place: int, base: float) -> Tensor:
    """Rotary positions (Su et al. 2021, eq. 14-15), a pair at a time: i and i + K/2 are one."""
    size = len(row_K)
    turned_K = [torch.empty(())] * size
    for pair in range(size // 2):
        angle = place * base ** (-2 * pair / size)
        x, y = row_K[pair], row_K[pair + size // 2]
        turned_K[pair] = x * math.cos(angle) - y * math.sin(angle)
        turned_K[pair + size // 2] = x * math.sin(angle) + y * math.cos(angle)
    return torch.stack(turned_K)


def feed_forward(block: SelfAttentionBlock, x_LD: Tensor) -> Tensor:
    """Dense, activation, dense."""
    return dense(activation(dense(x_LD, block.inner), block.config.activation), block.outer)


def run_block(block: SelfAttentionBlock, x: Tensor, causal: bool) -> Tensor:
    """A transformer block, its norms where its class has them."""
    if isinstance(block, PostNormBlock):  # BERT: y = LN(x + Attn(x)); LN(y + FFN(y))
        y = layer_norm(x + attend(block, x, x, causal), block.attention_norm)
        return layer_norm(y + feed_forward(block, y), block.feed_forward_norm)
    if isinstance(block, PreNormBlock):  # y = x + Attn(LN(x)); y + FFN(LN(y))
        normed = layer_norm(x, block.attention_norm)
        y = x + attend(block, normed, normed, causal)
        return y + feed_forward(block, layer_norm(y, block.feed_forward_norm))
    # SASRec's code: q = LN(x); y = LN(q + Attn(q, x, x)); y + FFN(y)
    q = layer_norm(x, block.attention_norm)
    y = layer_norm(q + attend(block, q, x, causal), block.feed_forward_norm)
    return y + feed_forward(block, y)


def encode(
    encoder: TransformerEncoder, items: Sequence[int], causal: bool,
    segments: Sequence[int] | None = None, attributes: Sequence[Sequence[int]] = (),
) -> Tensor:  # fmt: skip
    """Hidden states [L, D] of one sequence without dropout.

    `attributes` are each item's, where the encoder reads them; the mask has none (SASRec_F).
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
    for block in encoder.blocks:
        assert isinstance(block, SelfAttentionBlock)
        x = run_block(block, x, causal)
    return layer_norm(x, encoder.final_norm) if config.final_norm else x


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
    rows = [table_VD[item] for item in range(encoder.num_items)]
    if mask or head.config.special_classes:
        rows.append(encoder.item_table.weight[encoder.num_items])
    if head.config.special_classes:
        rows.append(head.padding_row[0])
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
) -> Tensor:
    """The loss of one token, as each paper has it."""
    right = scores[target]
    if isinstance(config, FullSoftmax):
        return -torch.log(torch.exp(right) / sum(torch.exp(score) for score in scores))
    if isinstance(config, SampledSoftmax):
        corrected = [scores[item] - config.log_q * log_q[item] for item in [target, *negatives]]
        return -torch.log(torch.exp(corrected[0]) / sum(torch.exp(each) for each in corrected))
    wrong = [scores[item] for item in negatives]
    if isinstance(config, BinaryCrossEntropy):  # SASRec, eq. 6
        return -log_sigmoid(right) - sum(log_sigmoid(-score) for score in wrong)
    if isinstance(config, GeneralizedBCE):  # gSASRec, eq. 11-13
        alpha = len(negatives) / (len(scores) - 1)
        t = config.calibration
        beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
        terms = [beta * log_sigmoid(right), *(log_sigmoid(-score) for score in wrong)]
        return -sum(terms) / (len(negatives) + 1)
    assert isinstance(config, BayesianPersonalizedRanking)
    if config.inner_sigmoid:  # S3-Rec's code
        right, wrong = sigmoid(right), [sigmoid(score) for score in wrong]
    return -sum(log_sigmoid(right - score) for score in wrong) / len(negatives)


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
        "history": history_of(catalogue.whole, user),
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
        pool = [item for each in users for item in history_of(catalogue.whole, each)]
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
