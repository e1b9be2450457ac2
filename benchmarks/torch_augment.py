"""Batched augmentations in plain PyTorch: the other side of `augment.py --against torch`.

`SAMPLE[name](mask, alpha, stats) -> params` and `APPLY[name](x, mask, params) -> (x, mask)` on whole batches: x
[B, T, 3], mask [B, T] bool, alpha [B], stats with leaves [B, ...]. The params are those of the JAX operations, so that
the tests give both the same draw. Every flow has its own draw, there is no Python loop over flows, and what is quickest
in eager torch was taken, by trial at 32,768 flows on CPU: maps of one integer a packet and one `index_select` of whole
packets (`gather` over an expanded index takes three times as long), scatters and running maxima instead of sorts (a
stable `argsort` takes six times as long as the `index_select`), `where` and `clamp` on contiguous columns.
Imported only with --against torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

Params = dict[str, Tensor]
Flows = tuple[Tensor, Tensor]

TRANSLATION_STEPS = (0.15, 0.3, 0.5, 0.8)
PERMUTATION_STEPS = (0.15, 0.45, 0.75, 0.9)
SEGMENTS = 6
LOSS_AT_FULL_MAGNITUDE = 0.1
LMIN, LMAX = 2, 6


def tensors(tree: dict[str, Any], device: str) -> Params:
    """Arrays of params, moved to torch."""
    return {name: torch.from_numpy(np.array(leaf)).to(device) for name, leaf in tree.items()}


def program(name: str) -> Callable[..., Flows]:
    """Draw and apply: f(x, mask, alpha, stats) -> (x, mask)."""
    sample, apply = SAMPLE[name], APPLY[name]

    @torch.inference_mode()
    def run(x: Tensor, mask: Tensor, alpha: Tensor, stats: Any) -> Flows:
        return apply(x, mask, sample(mask, alpha, stats))

    return run


def settle(device: str) -> None:
    """Waits for the accelerator; nothing on CPU."""
    if device != "cpu":
        torch.cuda.synchronize()


# What the operations share.


def _positions(mask: Tensor) -> Tensor:
    return torch.arange(mask.shape[1], device=mask.device)


def _below(bound: Tensor) -> Tensor:
    """Uniform integers in 0..bound-1, one an element of `bound` (0 where bound < 1)."""
    return (torch.rand(bound.shape, device=bound.device) * bound.clamp(min=1)).long()


def _steps(alpha: Tensor, thresholds: tuple[float, ...]) -> Tensor:
    return (alpha[:, None] >= alpha.new_tensor(thresholds)).sum(1)


def _take(x: Tensor, index: Tensor, count: Tensor) -> Flows:
    """Packet index[b, j] at place j < count[b], zeros behind (a row of zeros that the index of padding points to)."""
    flows, packets = index.shape
    new = torch.arange(packets, device=x.device) < count[:, None]
    base = torch.arange(0, flows * packets, packets, dtype=torch.int32, device=x.device)
    index = torch.where(new, index.int() + base[:, None], flows * packets)
    rows = torch.cat([x.reshape(-1, 3), x.new_zeros(1, 3)])
    return rows.index_select(0, index.view(-1)).view(flows, packets, 3), new


def _slots(*items: tuple[Tensor, Tensor]) -> Tensor:
    """Inverts destinations: `value` at place `destination` of each flow; destinations >= T fall off the end."""
    flows, packets = items[0][0].shape
    out = torch.zeros(flows, packets + 1, dtype=torch.long, device=items[0][0].device)
    for destination, value in items:
        out.scatter_(1, destination.clamp(max=packets), value.expand(flows, packets))
    return out[:, :packets]


def _anchors(delivered: Tensor) -> Tensor:
    """[B, T]: the first delivered packet at or behind each packet, else T."""
    packets = delivered.shape[1]
    place = torch.where(delivered, _positions(delivered), packets)
    return place.flip(1).cummin(1).values.flip(1)


# Draws.


def _nothing(mask: Tensor, alpha: Tensor, stats: Any) -> Params:
    return {}


def _noise(mask: Tensor, alpha: Tensor, stats: Any) -> Params:
    # One feature a flow changes, so that one value a packet is drawn.
    size = torch.rand(mask.shape[0], device=mask.device) < 0.5
    scale = torch.where(size[:, None], stats.std[..., 0], stats.std[..., 2])
    noise = torch.randn(mask.shape, device=mask.device).mul_(scale).mul_(alpha.sqrt()[:, None])
    return {"noise": torch.stack([noise * size[:, None], noise * ~size[:, None]], -1)}


def _hidden(mask: Tensor, alpha: Tensor, stats: Any) -> Params:
    return {"hidden": torch.rand(*mask.shape, 3, device=mask.device) < (0.6 * alpha)[:, None, None]}


def _window_start(mask: Tensor, alpha: Tensor, stats: Any) -> Params:
    return {"start": _below(2 * mask.sum(1) - mask.shape[1])}


def _around(mask: Tensor, alpha: Tensor, stats: Any) -> Params:
    return {"u": torch.rand(alpha.shape, device=alpha.device), "half_width": 0.05 + 0.10 * alpha}


def _shift(mask: Tensor, alpha: Tensor, stats: Any) -> Params:
    amount = 1 + _below(1 + _steps(alpha, TRANSLATION_STEPS))
    return {"start": _below(mask.sum(1)), "amount": amount, "right": torch.rand_like(alpha) < 0.5}


def _emissions(mask: Tensor, alpha: Tensor, stats: Any) -> Params:
    u, alpha = torch.rand(mask.shape, device=mask.device), alpha[:, None]
    return {"emit": 1 + (u < alpha / 2).int() - ((u >= alpha / 2) & (u < alpha)).int()}


def _segments(mask: Tensor, alpha: Tensor, stats: Any) -> Params:
    """Cuts by Floyd's sampling (a top-k of random scores takes several times as long), places by a small argsort."""
    flows, packets = mask.shape
    count = mask.sum(1)
    most = torch.minimum(2 + _steps(alpha, PERMUTATION_STEPS), count)
    cuts = torch.where(count >= 2, 1 + _below(most - 1), 0)
    boundary = torch.zeros(flows, packets + 1, dtype=torch.bool, device=mask.device)
    for i in range(SEGMENTS - 1):
        last = (count - cuts + i).clamp(max=packets - 1)
        one = (1 + _below(last)).clamp(max=packets - 1)
        one = torch.where(boundary.gather(1, one[:, None])[:, 0], last, one)
        boundary.scatter_(1, torch.where(i < cuts, one, packets)[:, None], True)
    scores = torch.rand(flows, SEGMENTS, device=mask.device)
    absent = torch.arange(SEGMENTS, device=mask.device) > cuts[:, None]
    return {"boundary": boundary[:, :packets], "place": scores.masked_fill_(absent, 2.0).argsort(1)}


def _single_losses(mask: Tensor, alpha: Tensor, stats: Any) -> Params:
    u = torch.rand(mask.shape, device=mask.device)
    return {"lost": mask & (u < LOSS_AT_FULL_MAGNITUDE * alpha[:, None])}


def _burst_losses(mask: Tensor, alpha: Tensor, stats: Any) -> Params:
    """A burst hides the beginnings of others, so packets are walked through, all flows at once."""
    packets, flows = mask.shape[1], mask.shape[0]
    begins = torch.rand(packets, flows, device=mask.device) < LOSS_AT_FULL_MAGNITUDE * alpha
    duration = torch.randint(LMIN, LMAX + 1, (packets, flows), dtype=torch.int32, device=mask.device)
    left, lost = torch.zeros(flows, dtype=torch.int32, device=mask.device), []
    for t in range(packets):
        left = torch.where((left == 0) & begins[t], duration[t], left)
        lost.append(left > 0)
        left = (left - 1).clamp_(min=0)
    return {"lost": torch.stack(lost, 1) & mask}


# Applications.


def _add_noise(x: Tensor, mask: Tensor, params: Params) -> Flows:
    size, direction, iat = x.unbind(-1)
    noise = params["noise"]
    columns = (torch.where(mask, (c + noise[..., i]).clamp_(0, 1), c) for i, c in enumerate((size, iat)))
    size, iat = columns
    return torch.stack([size, direction, iat], -1), mask


def _hide(x: Tensor, mask: Tensor, params: Params) -> Flows:
    return x.masked_fill(params["hidden"] & mask[..., None], 0.0), mask


def _flip(x: Tensor, mask: Tensor, params: Params) -> Flows:
    count = mask.sum(1)
    return _take(x, (count[:, None] - 1 - _positions(mask)).clamp_(min=0), count)


def _interpolate(x: Tensor, mask: Tensor, params: Params) -> Flows:
    packets, count = mask.shape[1], mask.sum(1)
    place = params["start"][:, None] + _positions(mask)
    return _middles(x, place, (2 * count - 1).clamp_(max=packets))


def _middles(x: Tensor, place: Tensor, count: Tensor) -> Flows:
    """Packet place / 2 where that is whole, else the mean of its neighbours."""
    last = x.shape[1] - 1
    left, new = _take(x, (place // 2).clamp_(max=last), count)
    return left.add_(_take(x, ((place + 1) // 2).clamp_(max=last), count)[0]).mul_(0.5), new


def _drop_window(x: Tensor, mask: Tensor, params: Params) -> Flows:
    iat = torch.where(mask, x[..., 2], 0.0)
    iat[:, 0] = 0
    time = iat.cumsum(1)
    end = time[:, -1:]
    keep = mask & ((time - params["u"][:, None] * end).abs() > params["half_width"][:, None] * end)
    spared = ~keep.any(1, keepdim=True)
    keep = torch.where(spared, mask, keep)
    # The time of the last survivor before each packet; -1: none.
    latest = torch.where(keep, time, -1.0).cummax(1).values
    before = torch.cat([torch.full_like(end, -1.0), latest[:, :-1]], 1)
    follows = torch.cat([keep[:, :1], keep[:, :-1]], 1)
    gap = torch.where(before < 0, 0.0, torch.where(follows, x[..., 2], time - before))
    moved = torch.stack([x[..., 0], x[..., 1], torch.where(spared, x[..., 2], gap)], -1)
    ends = keep.cumsum(1)
    source = _slots((torch.where(keep, ends - 1, mask.shape[1]), _positions(mask)))
    return _take(moved, source, ends[:, -1])


def _translate(x: Tensor, mask: Tensor, params: Params) -> Flows:
    packets, count, j = mask.shape[1], mask.sum(1), _positions(mask)
    start, amount, right = params["start"], params["amount"], params["right"]
    shorter = start + (count - start - amount).clamp_(min=0)
    empty = ~right & (shorter == 0)
    total = torch.where(right, (count + amount).clamp_(max=packets), torch.where(empty, count, shorter))
    step = torch.where(right, -amount, torch.where(empty, 0, amount))[:, None]
    # To the right, places start..start+amount hold copies of packet start; to the left, the rest moves up.
    source = torch.maximum(j + step, start[:, None]).clamp_(max=packets - 1)
    return _take(x, torch.where(j < start[:, None], j, source), torch.where(count > 0, total, 0))


def _wrap(x: Tensor, mask: Tensor, params: Params) -> Flows:
    packets, count, t = mask.shape[1], mask.sum(1), _positions(mask)
    emit = torch.where(t == count[:, None] - 1, params["emit"].clamp(max=1), params["emit"]) * mask
    emit[:, 0] += (mask[:, 0] & (emit.sum(1) == 0)).to(emit.dtype)
    ends = emit.cumsum(1)
    begins = ends - emit
    place = _slots(
        (torch.where(emit > 0, begins, packets), 2 * t), (torch.where(emit == 2, begins + 1, packets), 2 * t + 1)
    )
    return _middles(x, place, ends[:, -1].clamp(max=packets))


def _permute(x: Tensor, mask: Tensor, params: Params) -> Flows:
    """Each segment moves by the difference of its start behind all segments of lower place and its start now."""
    t = _positions(mask)
    segment, place = params["boundary"].cumsum(1), params["place"].long()
    nothing = torch.zeros(len(mask), SEGMENTS + 1, dtype=torch.long, device=mask.device)
    size = nothing[:, :SEGMENTS].scatter_add(1, segment, mask.long())
    by_place = nothing.scatter_add(1, place, size)
    starts = (by_place.cumsum(1) - by_place).gather(1, place)
    shift = starts - (size.cumsum(1) - size)
    destination = torch.where(mask, t + shift.gather(1, segment), t)
    return _take(x, _slots((destination, t)), mask.sum(1))


def _duplicate(x: Tensor, mask: Tensor, params: Params) -> Flows:
    """Originals move behind the copies flushed before them; copies come behind the packet that flushes them."""
    packets, count, t = mask.shape[1], mask.sum(1), _positions(mask)
    lost = params["lost"]
    losses = lost.cumsum(1)
    flushed = torch.where(mask & ~lost, losses, 0).cummax(1).values
    flushed = torch.cat([torch.zeros_like(flushed[:, :1]), flushed[:, :-1]], 1)
    anchor = torch.minimum(_anchors(mask & ~lost), count[:, None] - 1)
    copies = torch.where(lost, anchor + losses, packets)
    source = _slots((torch.where(mask, t + flushed, packets), t), (copies, t))
    return _take(x, source, (count + losses[:, -1]).clamp_(max=packets))


def _delay(x: Tensor, mask: Tensor, params: Params) -> Flows:
    """The delivered packet behind a run of losses moves in front of it; a lost tail stays."""
    t, lost = _positions(mask), params["lost"]
    anchor = _anchors(mask & ~lost)
    behind_lost = torch.cat([torch.zeros_like(lost[:, :1]), lost[:, :-1]], 1)
    source = torch.where(anchor == mask.shape[1], t, torch.where(behind_lost, t - 1, anchor))
    return _take(x, source, mask.sum(1))


SAMPLE: dict[str, Callable[[Tensor, Tensor, Any], Params]] = {
    "gaussian_noise": _noise,
    "bernoulli_mask": _hidden,
    "horizontal_flip": _nothing,
    "interpolation": _window_start,
    "packet_loss": _around,
    "translation": _shift,
    "wrap": _emissions,
    "permutation": _segments,
    "dup_rto": _burst_losses,
    "dup_fast_retransmit": _single_losses,
    "perm_rto": _burst_losses,
    "perm_fast_retransmit": _single_losses,
}
APPLY: dict[str, Callable[[Tensor, Tensor, Params], Flows]] = {
    "gaussian_noise": _add_noise,
    "bernoulli_mask": _hide,
    "horizontal_flip": _flip,
    "interpolation": _interpolate,
    "packet_loss": _drop_window,
    "translation": _translate,
    "wrap": _wrap,
    "permutation": _permute,
    "dup_rto": _duplicate,
    "dup_fast_retransmit": _duplicate,
    "perm_rto": _delay,
    "perm_fast_retransmit": _delay,
}
