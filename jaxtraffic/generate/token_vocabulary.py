"""The symbols a token network knows: the tokens that training shows, and one more that stands for all other sizes.

A token that training never shows would only be learnt away: its probability sinks as long as training lasts, and one
such packet in a held-out flow then costs any number of nats. Here all unseen sizes together have a fixed share, the
part of the training packets whose token occurs in their own flow only: what the flow would have been surprised by had
it been held out (Good-Turing's estimate, flow by flow; packets of a flow are no independent draws). Unseen sizes share
it with weight 1 / (16 + distance to the nearest seen size)^2. So every size is possible, the probabilities of all sizes
sum to one, and the network is as small as the data are. (Captures in place of flows over-estimate: a class of a single
capture makes all its sizes new; on doh_tunnels_iot 3 % where held-out flows show 0.08 %.)
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtraffic.generate.tokens import END, LOWEST, VALUES, Tokeniser
from jaxtraffic.quantile_scaling import NEIGHBOURHOOD
from jaxtraffic.series import PacketSeries

FIRST_IAT = 1
"""IAT symbol of 0 seconds, which the first packet of every flow has."""


class Symbols(NamedTuple):
    """Flows as a network reads them; leading axes [flow, T].

    Attributes:
        token: int32, index into the symbols; 0 from the end of the flow on, the last symbol for an unseen size.
        offset: int32, place in the bin; 0 for unseen sizes.
        iat: int32, symbol of the IAT, 0 in padding; None where IATs are not modelled.
        known: float32 nats, what no network decides: the log-probability of an unseen size among its like, and of an
            IAT given its symbol.
    """

    token: Any
    offset: Any
    iat: Any
    known: Any


class Tables(NamedTuple):
    """What the probabilities need beside the network.

    Attributes:
        offset_mask: [symbol, O] bool, the offsets that a symbol has.
        unseen_share: [] float32, probability of an unseen size at any packet.
        iat_share: [] float32, probability that is spread evenly over all IAT symbols.
    """

    offset_mask: jax.Array
    unseen_share: jax.Array
    iat_share: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """Symbols of a tokeniser: the end, the tokens seen in training in its order, and the unseen.

    Attributes:
        tokeniser: fitted on training flows.
        unseen_share: probability of an unseen size at any packet, below 1.
        iat_share: probability that is spread evenly over all IAT symbols, in (0, 1).
    """

    tokeniser: Tokeniser
    unseen_share: float
    iat_share: float = 0.0

    @classmethod
    def of(cls, tokeniser: Tokeniser, train: PacketSeries) -> Vocabulary:
        """The vocabulary of a tokeniser that was fitted on these flows."""
        mask, share = np.asarray(train.mask), 0.0
        if tokeniser.times is not None:
            share = new_share(tokeniser.times.encode(np.asarray(train.iat), np.asarray(train.n_packets))[0], mask)
        return cls(tokeniser, new_share(tokeniser.encode_series(train)[0], mask), share)

    @functools.cached_property
    def seen(self) -> np.ndarray:
        """[symbol - 1] int32: token of each symbol but the last."""
        counts = self.tokeniser.token_counts
        return np.flatnonzero((counts > 0) | (np.arange(counts.size) == END)).astype(np.int32)

    @property
    def n_symbols(self) -> int:
        """Symbols, the end and the unseen included."""
        return len(self.seen) + 1

    @property
    def unseen(self) -> int:
        """The symbol of unseen sizes."""
        return len(self.seen)

    @functools.cached_property
    def n_offsets(self) -> int:
        """Offsets of the widest seen bin."""
        return int(np.flatnonzero(self.tokeniser.offset_mask[self.seen].any(axis=0)).max()) + 1

    @property
    def n_iats(self) -> int:
        """IAT symbols; 0 where IATs are not modelled."""
        return 0 if self.tokeniser.times is None else self.tokeniser.times.n_tokens

    @functools.cached_property
    def unseen_values(self) -> np.ndarray:
        """[value] int32 ascending: signed sizes that no seen token holds."""
        return np.setdiff1d(np.arange(LOWEST, LOWEST + VALUES), self._held, assume_unique=True).astype(np.int32)

    @functools.cached_property
    def _held(self) -> np.ndarray:
        """[value] ascending: signed sizes of the seen tokens."""
        token, offset = np.nonzero(self.tokeniser.offset_mask[self.seen[1:]])
        return np.unique(self.tokeniser.low[self.seen[1:]][token] + offset)

    @functools.cached_property
    def unseen_probability(self) -> np.ndarray:
        """[value] float64: probability of each unseen size among them."""
        values, held = self.unseen_values, self._held
        above = np.searchsorted(held, values)
        near = np.minimum(
            np.abs(values - held[np.minimum(above, held.size - 1)]), np.abs(values - held[np.maximum(above - 1, 0)])
        )
        weight = 1.0 / np.square(NEIGHBOURHOOD + near)
        return weight / weight.sum()

    def tables(self) -> Tables:
        """Tables for the device, as host arrays."""
        mask = np.zeros((self.n_symbols, self.n_offsets), bool)
        mask[:-1] = self.tokeniser.offset_mask[self.seen, : self.n_offsets]
        mask[-1, 0] = True
        share = self.unseen_share if self.unseen_values.size else 0.0
        return Tables(mask, np.float32(share), np.float32(self.iat_share))

    def biases(self) -> dict[str, np.ndarray]:
        """Log shares in training, where the output biases of a network start: token [symbol], offset [symbol, O]."""
        token = np.append(self.tokeniser.token_log_prior()[self.seen], 0.0).astype(np.float32)
        offset = np.zeros((self.n_symbols, self.n_offsets), np.float32)
        prior = self.tokeniser.offset_log_prior()[self.seen, : self.n_offsets]
        offset[:-1] = np.where(np.isfinite(prior), prior, 0.0)
        made = {"token": token, "offset": offset}
        if self.tokeniser.times is not None:
            counts = self.tokeniser.times.counts + 0.1
            made["iat"] = np.log(counts / counts.sum()).astype(np.float32)
        return made

    def encode(self, flows: PacketSeries) -> Symbols:
        """Symbols of a series of the tokeniser's length."""
        token, offset = self.tokeniser.encode_series(flows)
        symbol_of = np.full(self.tokeniser.n_tokens, self.unseen, np.int32)
        symbol_of[self.seen] = np.arange(len(self.seen))
        symbol = symbol_of[token]
        unseen = symbol == self.unseen
        known = np.zeros(symbol.shape, np.float64)
        if unseen.any():
            place = np.searchsorted(self.unseen_values, np.asarray(flows.signed_size)[unseen])
            known[unseen] = np.log(self.unseen_probability[place])
        iat = None
        if self.tokeniser.times is not None:
            iat, fraction = self.tokeniser.times.encode(np.asarray(flows.iat), np.asarray(flows.n_packets))
            known[:, 1:] += self.tokeniser.times.log_prob(iat, fraction)[:, 1:]
        return Symbols(symbol, np.where(unseen, 0, offset).astype(np.int32), iat, known.astype(np.float32))

    def decode(
        self,
        symbols: Symbols,
        uniform: np.ndarray,
        label: np.ndarray,
        *,
        given: PacketSeries | None = None,
        r: np.ndarray | None = None,
        **metadata: Any,
    ) -> PacketSeries:
        """A series of drawn symbols.

        Args:
            symbols: from the sampler; `known` is not read.
            uniform: [flow, T, 2] float32 in [0, 1), which decide unseen sizes and the places of IATs within bins.
            label: [flow] integers.
            given: flows whose first packets are kept as they are, with `r`.
            r: [flow] integers, how many packets are kept.
            metadata: class_names, name and size_layer, for `Tokeniser.decode_series`.
        """
        unseen = symbols.token == self.unseen
        token, offset = np.append(self.seen, END)[symbols.token], np.array(symbols.offset)
        if unseen.any():
            place = np.searchsorted(np.cumsum(self.unseen_probability), uniform[..., 0][unseen], side="right")
            signed = np.zeros(token.shape, np.int16)
            signed[unseen] = self.unseen_values[np.minimum(place, self.unseen_values.size - 1)]
            full = np.full(len(token), self.tokeniser.length)
            drawn = self.tokeniser.encode(signed, full)
            token, offset = np.where(unseen, drawn[0], token), np.where(unseen, drawn[1], offset)
        times = self.tokeniser.times
        iat = None if times is None else times.decode(np.asarray(symbols.iat), uniform[..., 1])
        made = self.tokeniser.decode_series(token, offset, label, iat=iat, **metadata)
        return made if given is None else keep_first(made, given, r)


def keep_first(made: PacketSeries, given: PacketSeries, r: np.ndarray) -> PacketSeries:
    """`made` with the first r [flow] packets of `given` in their place: size, direction and IAT."""
    kept = np.arange(made.length) < np.asarray(r)[:, None]
    fields = ("size", "direction", "iat")
    return made.replace(
        **{name: np.where(kept, np.asarray(getattr(given, name)), getattr(made, name)) for name in fields}
    ).check()


def new_share(token: np.ndarray, mask: np.ndarray) -> float:
    """Share of the packets (mask [flow, T]) whose token [flow, T] occurs in no other flow; never 0, at most a half."""
    flow = np.broadcast_to(np.arange(len(token))[:, None], token.shape)[mask].astype(np.int64)
    pair = np.unique(token[mask].astype(np.int64) * len(token) + flow)
    value, flows = np.unique(pair // len(token), return_counts=True)
    new = np.isin(token[mask], value[flows == 1]).sum()
    return float(min(max(new, 0.5) / flow.size, 0.5))
