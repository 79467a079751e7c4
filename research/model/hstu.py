"""HSTU's block: attention without softmax, and a gate in place of a feed-forward part.

    U, V, Q, K = split(SiLU(norm(x) W))                                            (1)
    A V = sum over the keys that are seen of SiLU(q k' + r_p + r_t) v / N          (2)
    y = x + (norm(A V) * U) W' + b'                                                (3)

Source: Zhai et al. 2024, "Actions Speak Louder than Words" (arXiv 2402.17152), eq. 1-3; the first
norm, the residual sum and N are from their code, `SequentialTransductionUnitJagged` of
facebookresearch/generative-recommenders. The relative biases are numbers that each layer learns and
its heads share: r_p for the distance between query and key in places, r_t for the time between
their events, by the bucket floor(ln(max(1, seconds)) / 0.301). The second norm is over all heads
together. A departure: their code uses, as a query's time, the time of the event after it, the one
to be predicted. No causal state may know that time here, so the query's own time is used.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from research.config import check_types
from research.errors import InputError
from research.model.attention import Bias, over_rectangles
from research.model.backbone import MAX_SIZE
from research.model.kernels.dropout import dropout
from research.model.norms import Norm, build_norm
from research.model.positions import Positions
from research.model.transformer_block import FLOAT, Block, BlockConfig, with_zero_gradients
from research.packed import Packed
from research.rectangles import Rectangle

if TYPE_CHECKING:
    from research.model.transformer_config import TransformerConfig

# Width of a bucket of times, in natural logarithms of seconds.
BUCKET_WIDTH = 0.301


@dataclass(frozen=True, kw_only=True)
class HSTU(BlockConfig):
    """SiLU attention divided by a length, gated, with relative biases (HSTU).

    The encoder's `attention_dropout` is applied to the attention weights (published: 0), its
    `hidden_dropout` to the input of the output projection. The block has no feed-forward part and
    always projects, so it does not read `feed_forward`, `activation`, `inner_dropout`,
    `attention_output_dropout` and `output_projection`.
    """

    times: bool = False
    """Whether the time between two events also biases their score; the corpus must then have
    times."""
    time_buckets: int = 128
    """With `times`: the index of the last bucket, which also holds all longer times."""
    head_width: int | None = None
    """K, the width of a head in each of U, V, Q and K; None: the encoder's width over its heads."""
    divisor: Literal["length", "visible"] = "length"
    """N: "length", the encoder's length (in the published code, the length that it pads to), or
    "visible", the number of keys that the query sees."""
    norm: Norm = "bare"
    """The kind of both norms: bare (LayerNorm without gain and shift, as published), layer or
    rms."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("time_buckets", "head_width"):
            value = vars(self)[name]
            if value is not None and not 1 <= value <= MAX_SIZE:
                raise InputError(
                    f"encoder.block.{name} is {value}; it must be at least 1 and at most {MAX_SIZE}"
                )

    @property
    def fields(self) -> Collection[str]:
        """The field "time", if times bias scores."""
        return ("time",) if self.times else ()

    def width_of_head(self, config: TransformerConfig) -> int:
        """K: `head_width`, or the encoder's width over its heads."""
        return config.width // config.heads if self.head_width is None else self.head_width

    def build(self, config: TransformerConfig) -> HSTUBlock:
        """One block."""
        return HSTUBlock(self, config)

    def activation_bytes(
        self, config: TransformerConfig, tokens: int, rows: int, longest: int
    ) -> Mapping[str, int]:
        """Estimates, by name, of the bytes that one block in fp32 keeps for its backward pass.

        Hidden states are T (3 D + 9 E) + S L 3 E numbers, with E = H K. Scores are S H L^2 numbers
        before SiLU, as many after it, and as many again after dropout. Indices into the tables of
        biases take 8 bytes for each of L^2 pairs, and with times for each of S L^2 more.
        """
        inner = config.heads * self.width_of_head(config)
        states = tokens * (3 * config.width + 9 * inner) + rows * longest * 3 * inner
        copies = 3 if config.dropouts.attention else 2
        return {
            "hidden states": FLOAT * states,
            "scores of attention": copies * FLOAT * rows * config.heads * longest**2,
            "places in tables of biases": 8 * (1 + rows * self.times) * longest**2,
        }


class HSTUBlock(Block):
    """One layer of HSTU: gated pointwise attention without a feed-forward part (see `HSTU`)."""

    def __init__(self, block: HSTU, config: TransformerConfig) -> None:
        super().__init__(config)
        self.block = block
        self.inner = config.heads * block.width_of_head(config)
        self.input_norm = build_norm(block.norm, config.width, config.norm_eps)
        # One product gives U, Q, K and V, in this order.
        self.projection = nn.Linear(config.width, 4 * self.inner, bias=False)
        self.mixed_norm = build_norm(block.norm, self.inner, config.norm_eps)
        self.output = nn.Linear(self.inner, config.width)
        # Named as weights, so that they are drawn and decayed like weights, as in the published
        # code: a parameter with "bias" in its name would begin at 0.
        self.position_weights = nn.Parameter(torch.empty(2 * config.length - 1))
        if block.times:
            self.time_weights = nn.Parameter(torch.empty(block.time_buckets + 1))

    def forward(
        self,
        x_TD: Tensor,
        packed: Packed,
        positions: Positions,
        *,
        causal: bool,
        read_P: Tensor | None = None,
    ) -> Tensor:
        """[T, D] -> [T, D], or [P, D]: the output at the tokens with the indices `read_P`."""

        def bias(rectangle: Rectangle) -> Tensor:
            relative = self.relative_bias(rectangle)
            if not self.config.positions.biases_scores:
                return relative
            return relative + positions.bias(rectangle)

        gate_TE, qkv_TE = self.maybe_compiled(HSTUBlock.before_attention, x_TD.shape[0])(self, x_TD)
        qkv_T3HK = rearrange(qkv_TE, "T (three H K) -> T three H K", three=3, H=self.config.heads)
        core = PointwiseCore(
            causal=causal,
            dropout=self.dropouts.attention if self.training else 0.0,
            bias=bias,
            divisor=self.config.length if self.block.divisor == "length" else None,
        )
        mixed_PHK = over_rectangles(
            core, positions.apply_positions(qkv_T3HK, packed), packed, read_P
        )
        biases = [*self.tables(), *positions.parameters()]
        mixed_PE = with_zero_gradients(rearrange(mixed_PHK, "P H K -> P (H K)"), biases)
        if read_P is not None:
            x_TD, gate_TE = x_TD.index_select(0, read_P), gate_TE.index_select(0, read_P)
        return self.maybe_compiled(HSTUBlock.after_attention, x_TD.shape[0])(
            self, x_TD, gate_TE, mixed_PE
        )

    def before_attention(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """U [T, E], and Q, K and V side by side [T, 3 E] (eq. 1)."""
        normed_TD, weight = self.input_norm(x_TD), self.projection.weight
        gate_TE = F.silu(F.linear(normed_TD, weight[: self.inner]))
        return gate_TE, F.silu(F.linear(normed_TD, weight[self.inner :]))

    def after_attention(self, x_PD: Tensor, gate_PE: Tensor, mixed_PE: Tensor) -> Tensor:
        """The block's output [P, D] (eq. 3)."""
        gated_PE = dropout(self.mixed_norm(mixed_PE) * gate_PE, self.dropouts.hidden, self.training)
        out_PD: Tensor = x_PD + self.output(gated_PE)
        return out_PD

    def tables(self) -> list[Tensor]:
        """The learned tables that relative biases are looked up in."""
        return [self.position_weights, *([self.time_weights] if self.block.times else [])]

    def relative_bias(self, rectangle: Rectangle) -> Tensor:
        """r_p + r_t, [B or 1, 1, Q, L], which broadcasts to [B, H, Q, L]."""
        places_BQL = rectangle.distances_BQL + (self.config.length - 1)
        bias_BQL = look_up(self.position_weights, places_BQL)
        if self.block.times:
            buckets_BQL = time_buckets(rectangle, self.block.time_buckets)
            bias_BQL = bias_BQL + look_up(self.time_weights, buckets_BQL)
        return bias_BQL[:, None]


@dataclass(frozen=True)
class PointwiseCore:
    """SiLU(q k' + bias) v / N over the keys that a query may see, with dropout on the weights."""

    causal: bool
    """Whether a query sees only the keys of its own token and of older ones."""
    dropout: float
    """Probability of dropping an attention weight."""
    bias: Bias
    """What is added to the scores."""
    divisor: int | None
    """N; None: the number of keys that the query sees."""

    def __call__(
        self, q_BQHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, rectangle: Rectangle
    ) -> Tensor:
        """[B, Q, H, K], in fp32 at least, as low precision would round the sums; see `Core`."""
        q, k, v = q_BQHK.transpose(1, 2), k_BLHK.transpose(1, 2), v_BLHK.transpose(1, 2)
        wide = torch.promote_types(q.dtype, torch.float32)
        scores_BHQL = (q @ k.mT).to(wide) + self.bias(rectangle)
        visible = rectangle.visible(self.causal)
        if visible is not None:
            # SiLU(0) is 0, so hidden keys add nothing.
            scores_BHQL = torch.where(visible[:, None], scores_BHQL, 0.0)
        weights_BHQL = dropout(F.silu(scores_BHQL), self.dropout, training=True)
        mixed = (weights_BHQL.to(v.dtype) @ v).to(wide)
        return (mixed / self._divisor(rectangle)).transpose(1, 2)

    def _divisor(self, rectangle: Rectangle) -> Tensor | int:
        """N, as a number or a tensor that broadcasts to [B, H, Q, K]."""
        if self.divisor is not None:
            return self.divisor
        if self.causal:
            return rectangle.places_BQ[:, None, :, None] + 1
        if rectangle.lengths_B is None:
            return rectangle.slots_BL.shape[1]
        return rectangle.lengths_B.clamp(min=1)[:, None, None, None]


def time_buckets(rectangle: Rectangle, last: int) -> Tensor:
    """int64 [B, Q, L]: the bucket of the time between query and key, whichever of them is newer.

    Bucket n begins at e^(0.301 n) seconds. Bucket 0 holds all times below two seconds, and bucket
    `last` also all longer times.
    """
    times_BL = rectangle.fields["time"]
    times_BQ = times_BL.gather(1, rectangle.places_BQ)
    seconds_BQL = (times_BQ[..., None] - times_BL[:, None]).abs().clamp(min=1)
    # In float64, where rounding the logarithm of an integer never changes its bucket.
    return (seconds_BQL.double().log() / BUCKET_WIDTH).long().clamp(max=last)


def look_up(table_N: Tensor, indices: Tensor) -> Tensor:
    """The table's numbers at `indices`, in the shape of `indices`."""
    return table_N.index_select(0, indices.flatten()).view(indices.shape)
