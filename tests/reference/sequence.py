"""Sequence and batch augmentations in plain NumPy, one flow after the other, as the papers define them.

Every `sample_*` draws the parameters of one flow, every other function applies them: x [T, 3] (size, direction, iat),
mask [T] bool (a prefix). The new mask is a prefix and everything outside it holds `pad`. cutmix takes a batch.
"""

import numpy as np


def series(packets, x, pad):
    """The first T of a list of packets at the length and dtype of x, then padding."""
    length = min(len(packets), len(x))
    out = np.empty_like(x)
    out[:length] = packets[:length] if length else pad
    out[length:] = pad
    return out, np.arange(len(x)) < length


def sample_nothing(rng, mask, alpha, stats=None):
    return {}


def horizontal_flip(x, mask, params, pad=0.0, padding_first=False):
    out, valid = series(x[mask][::-1], x, pad)
    if padding_first:
        flow = x[mask]
        out[: len(x) - len(flow)] = pad
        out[len(x) - len(flow) :] = flow[::-1]
        valid = mask[::-1]
    return out, valid


def sample_interpolation(rng, mask, alpha, stats=None):
    latest = max(0, 2 * int(mask.sum()) - 1 - len(mask))
    return {"start": np.int32(rng.integers(0, latest, endpoint=True))}


def interpolation(x, mask, params, pad=0.0, direction="mean"):
    flow = x[mask]
    if len(flow) == 0:
        return series(flow, x, pad)
    expanded = np.empty((2 * len(flow) - 1, 3), x.dtype)
    expanded[::2] = flow
    expanded[1::2] = (flow[:-1] + flow[1:]) / 2
    if direction == "hold":
        expanded[1::2, 1] = flow[:-1, 1]
    return series(expanded[int(params["start"]) :], x, pad)


def sample_packet_loss(rng, mask, alpha, stats=None, mode="fraction"):
    half_width = 0.05 + 0.10 * alpha if mode == "fraction" else 5 + 10 * alpha
    return {"u": np.float32(rng.random()), "half_width": np.float32(half_width)}


def packet_loss(x, mask, params, pad=0.0, mode="fraction", keep_min=1, to_seconds=None, from_seconds=None):
    flow = x[mask]
    if len(flow) == 0:
        return series(flow, x, pad)
    iat = flow[:, 2].astype(np.float64)
    if to_seconds is not None:
        iat = to_seconds(iat)
    iat[0] = 0
    time = np.cumsum(iat)
    half_width = params["half_width"] * (time[-1] if mode == "fraction" else 1.0)
    kept = np.flatnonzero(np.abs(time - params["u"] * time[-1]) > half_width)
    if len(kept) < keep_min or len(kept) == 0:
        return series(flow if len(kept) < keep_min else flow[:0], x, pad)
    out = flow[kept]
    new_iat = np.diff(time[kept], prepend=time[kept[0]])
    if from_seconds is not None:
        new_iat = from_seconds(new_iat)
    neighbour_lost = np.diff(kept, prepend=-2) > 1
    out[neighbour_lost, 2] = new_iat[neighbour_lost]
    return series(out, x, pad)


def sample_translation(rng, mask, alpha, stats=None):
    most = 1 + sum(threshold <= alpha for threshold in (0.15, 0.3, 0.5, 0.8))
    return {
        "start": np.int32(rng.integers(0, max(int(mask.sum()), 1))),
        "amount": np.int32(rng.integers(1, most, endpoint=True)),
        "right": np.bool_(rng.random() < 0.5),
    }


def translation(x, mask, params, pad=0.0):
    flow, t, amount = x[mask], int(params["start"]), int(params["amount"])
    if params["right"]:
        moved = np.concatenate([flow[:t], np.repeat(flow[t : t + 1], amount, axis=0), flow[t:]])
    else:
        moved = np.concatenate([flow[:t], flow[t + amount :]])
    return series(moved if len(moved) else flow, x, pad)


def sample_wrap(rng, mask, alpha, stats=None):
    emit = rng.choice([0, 1, 2], size=len(mask), p=[alpha / 2, 1 - alpha, alpha / 2])
    return {"emit": emit.astype(np.int32)}


def wrap(x, mask, params, pad=0.0, direction="mean"):
    flow, out = x[mask], []
    for t, packet in enumerate(flow):
        if params["emit"][t] >= 1:
            out.append(packet)
        if params["emit"][t] == 2 and t + 1 < len(flow):
            between = (packet + flow[t + 1]) / 2
            if direction == "hold":
                between[1] = packet[1]
            out.append(between)
    return series(out if out else flow[:1], x, pad)


def sample_permutation(rng, mask, alpha, stats=None):
    n = int(mask.sum())
    boundary, place = np.zeros(len(mask), bool), np.arange(6, dtype=np.int32)
    if n >= 2:
        most = 2 + sum(threshold <= alpha for threshold in (0.15, 0.45, 0.75, 0.9))
        segments = rng.integers(2, min(most, n), endpoint=True)
        boundary[rng.choice(np.arange(1, n), segments - 1, replace=False)] = True
        place[:segments] = rng.permutation(segments)
    return {"boundary": boundary, "place": place}


def permutation(x, mask, params, pad=0.0):
    flow = x[mask]
    if len(flow) < 2:
        return series(flow, x, pad)
    segments = np.split(flow, np.flatnonzero(params["boundary"][: len(flow)]))
    order = np.argsort(params["place"][: len(segments)])
    return series(np.concatenate([segments[g] for g in order]), x, pad)


def sample_burst_loss(rng, mask, alpha, stats=None, lmin=2, lmax=6, first=0):
    lost, remaining = np.zeros(len(mask), bool), 0
    for t in range(first, int(mask.sum())):
        if remaining == 0 and rng.random() < 0.1 * alpha:
            remaining = rng.integers(lmin, lmax, endpoint=True)
        lost[t] = remaining > 0
        remaining = max(remaining - 1, 0)
    return {"lost": lost}


def sample_iid_loss(rng, mask, alpha, stats=None, first=0):
    lost = mask & (rng.random(len(mask)) < 0.1 * alpha)
    lost[:first] = False
    return {"lost": lost}


def with_times(packets, moments, flow):
    """The packets with the IATs of their capture, packet i at the time of flow[moments[i]]; the first keeps its own."""
    time, out = np.cumsum(flow[:, 2], dtype=np.float64), [packet.copy() for packet in packets]
    for i, packet in enumerate(out):
        before, now = moments[max(i - 1, 0)], moments[i]
        packet[2] = flow[now, 2] if now == before + 1 else time[now] - time[before]
        if i == 0:
            packet[2] = flow[0, 2]
    return out


def duplicate(x, mask, params, pad=0.0, iat="carry", **_):
    """Captured before the loss: lost packets show, and again after the next delivered packet."""
    flow, out, moments, queue = x[mask], [], [], []
    for t, (packet, lost) in enumerate(zip(flow, params["lost"])):
        out.append(packet)
        if lost:
            queue.append(packet)
        else:
            out += queue
            queue = []
        moments += [t] * (len(out) - len(moments))
    out += queue
    moments += [len(flow) - 1] * len(queue)
    return series(out if iat == "carry" else with_times(out, moments, flow), x, pad)


def delay(x, mask, params, pad=0.0, iat="carry", **_):
    """Captured after the loss: lost packets show only after the next delivered packet, a lost tail at the last time."""
    flow, out, moments, queue = x[mask], [], [], []
    for t, (packet, lost) in enumerate(zip(flow, params["lost"])):
        if lost:
            queue.append(packet)
        else:
            out += [packet, *queue]
            queue = []
            moments += [t] * (len(out) - len(moments))
    out += queue
    moments += [len(flow) - 1] * len(queue)
    return series(out if iat == "carry" else with_times(out, moments, flow), x, pad)


def sample_cutmix(rng, mask, alpha, stats=None, label=None, literal=False, within_class=False):
    flows, length = mask.shape
    groups = [np.flatnonzero(label == c) for c in np.unique(label)] if within_class else [np.arange(flows)]
    partner, start, width = np.arange(flows), np.zeros(flows, int), np.zeros(flows, int)
    for group in groups:
        group = rng.permutation(group)
        for i, j in zip(group[0::2], group[1::2]):
            w = rng.integers(0, length)
            t = rng.integers(0, length - 1 - w if literal else length - w, endpoint=True)
            partner[i], partner[j] = j, i
            start[[i, j]], width[[i, j]] = t, w
    return {
        "partner": partner.astype(np.int32),
        "start": start.astype(np.int32),
        "width": width.astype(np.int32),
        "lam": np.where(partner == np.arange(flows), 1.0, 1.0 - width / length).astype(np.float32),
    }


def cutmix(x, mask, params, pad=0.0, **_):
    """x [B, T, 3], mask [B, T]."""
    out, valid = np.empty_like(x), np.empty_like(mask)
    for i, (j, start, width) in enumerate(zip(params["partner"], params["start"], params["width"])):
        mixed, present = x[i].copy(), mask[i].copy()
        mixed[start : start + width] = x[j, start : start + width]
        present[start : start + width] = mask[j, start : start + width]
        out[i], valid[i] = series(mixed[present], x[i], pad)
    return out, valid


def sample_mss_variation(rng, mask, alpha, stats=None, mss=(500, 1460), rtt_max=0.2):
    lowest = int(np.ceil(mss[1] - alpha * (mss[1] - mss[0])))
    return {
        "mss": np.int32(rng.integers(lowest, mss[1], endpoint=True)),
        "rtt": np.float32(rng.uniform(0, alpha * rtt_max)),
    }


def mss_variation(x, mask, params, pad=0.0, header=40, **_):
    mss, out, group = int(params["mss"]), [], None

    def flush():
        if group is not None:
            payload, first, _ = group
            pieces = [mss] * (payload // mss) + [payload % mss] * (payload % mss > 0)
            for i, piece in enumerate(pieces):
                out.append((piece + header, first[1], first[2] if i == 0 else 0))

    for packet in x[mask]:
        payload = int(packet[0]) - header
        if payload <= 0:
            flush()
            group = None
            out.append(packet)
            continue
        if group is not None:
            since = group[2] + float(packet[2])
            if packet[1] == group[1][1] and since < params["rtt"]:
                group = (group[0] + payload, group[1], since)
                continue
        flush()
        group = (payload, packet, 0.0)
    flush()
    return series(out, x, pad)


def sample_iat_scale(rng, mask, alpha, stats=None, width=0.5):
    return {"factor": np.float32(rng.uniform(1 - width * alpha, 1 + width * alpha))}


def iat_scale(x, mask, params, pad=0.0, **_):
    out = x.copy()
    out[mask, 2] *= params["factor"]
    return out, mask


def sample_time_shift(rng, mask, alpha, stats=None, max_shift=1.0):
    return {"shift": np.float32(alpha * max_shift * rng.uniform(-1, 1))}


def time_shift(x, mask, params, pad=0.0, rebase=False, **_):
    flow = x[mask]
    time = np.cumsum(flow[:, 2], dtype=np.float64) + float(params["shift"])
    kept = flow[time >= 0]
    if len(kept) == 0:
        return series(flow, x, pad)
    kept[0, 2] = 0.0 if rebase else time[time >= 0][0]
    return series(kept, x, pad)


def sample_tail_occlusion(rng, mask, alpha, stats=None, fraction=0.5):
    # Rounded first: 25 packets at 0.4 keep 15, though 25 * (1 - 0.4) may lie a rounding error above it.
    return {"keep": np.int32(np.ceil(np.round(int(mask.sum()) * (1 - fraction * alpha), 5)))}


def tail_occlusion(x, mask, params, pad=0.0, **_):
    return series(x[mask][: int(params["keep"])], x, pad)


def sample_shuffle(rng, mask, alpha, stats=None):
    order, n = np.arange(len(mask), dtype=np.int32), int(mask.sum())
    order[:n] = rng.permutation(n)
    return {"order": order}


def shuffle(x, mask, params, pad=0.0):
    return series(x[params["order"][: int(mask.sum())]], x, pad)


SAMPLE = {
    "horizontal_flip": sample_nothing,
    "interpolation": sample_interpolation,
    "packet_loss": sample_packet_loss,
    "translation": sample_translation,
    "wrap": sample_wrap,
    "permutation": sample_permutation,
    "dup_rto": sample_burst_loss,
    "dup_fast_retransmit": sample_iid_loss,
    "perm_rto": sample_burst_loss,
    "perm_fast_retransmit": sample_iid_loss,
    "cutmix": sample_cutmix,
    "mss_variation": sample_mss_variation,
    "iat_scale": sample_iat_scale,
    "time_shift": sample_time_shift,
    "tail_occlusion": sample_tail_occlusion,
    "shuffle": sample_shuffle,
}
APPLY = {
    "horizontal_flip": horizontal_flip,
    "interpolation": interpolation,
    "packet_loss": packet_loss,
    "translation": translation,
    "wrap": wrap,
    "permutation": permutation,
    "dup_rto": duplicate,
    "dup_fast_retransmit": duplicate,
    "perm_rto": delay,
    "perm_fast_retransmit": delay,
    "cutmix": cutmix,
    "mss_variation": mss_variation,
    "iat_scale": iat_scale,
    "time_shift": time_shift,
    "tail_occlusion": tail_occlusion,
    "shuffle": shuffle,
}
