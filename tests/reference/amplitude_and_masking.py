"""Amplitude and masking augmentations of one flow in plain NumPy, as the papers define them.

Every `sample_*` draws the parameters of one flow, every other function applies them: x [T, 3] (size, direction, iat),
mask [T] bool (a prefix), and the same out. Nothing outside the mask is touched and the mask stays as it is.
"""

import numpy as np

SIZE_AND_IAT = [0, 2]


def sample_features(rng, features):
    """[2] bool, whether sizes and IATs change: "one" of them, drawn for each flow, "both", "size" or "iat"."""
    if features == "one":
        first = rng.random() < 0.5
        return np.array([first, not first])
    return np.array([features in ("both", "size"), features in ("both", "iat")])


def clipped(before, after, clip):
    """Where the operation changed an element, the new value within `clip`; elsewhere the old value."""
    changed = after != before
    if clip is not None:
        after = np.clip(after, clip[0], clip[1])
    return np.where(changed, after, before)


def sample_gaussian_noise(rng, mask, alpha, stats=None, features="one"):
    chosen = sample_features(rng, features)
    std = np.asarray(stats.std)[:, SIZE_AND_IAT][:, chosen]
    noise = np.zeros((len(mask), 2), np.float32)
    noise[:, chosen] = np.sqrt(alpha) * std * rng.standard_normal(std.shape)
    return {"noise": noise}


def gaussian_noise(x, mask, params, clip=(0.0, 1.0), pad=0.0, features="one"):
    out, n = x.copy(), int(mask.sum())
    noise = params["noise"][:n]
    before = x[:n, SIZE_AND_IAT]
    out[:n, SIZE_AND_IAT] = clipped(before, before + noise, clip)
    return out, mask


def sample_spike_noise(rng, mask, alpha, stats=None, max_spikes=3, features="one"):
    chosen = sample_features(rng, features)
    return {
        "u": rng.random((max_spikes, 2), dtype=np.float32),
        "noise": rng.standard_normal((max_spikes, 2), dtype=np.float32),
        "scale": (chosen * np.sqrt(alpha) * np.asarray(stats.std)[:, SIZE_AND_IAT]).astype(np.float32),
    }


def spike_noise(x, mask, params, clip=(0.0, 1.0), pad=0.0, max_spikes=3, features="one"):
    out, n = x.copy(), int(mask.sum())
    for d, column in enumerate(SIZE_AND_IAT):
        candidates = np.flatnonzero(x[:n, column])
        count = len(candidates)
        spikes = min(max_spikes, count)
        chosen = []
        for i in range(spikes):
            # Floyd's sampling without replacement: one draw a spike.
            last = count - spikes + i
            r = int(np.floor(params["u"][i, d] * np.float32(last + 1)))
            chosen.append(last if r in chosen else r)
            t = candidates[chosen[-1]]
            delta = params["noise"][i, d] * params["scale"][t, d]
            out[t, column] = clipped(x[t, column], x[t, column] + delta, clip)
    return out, mask


def sample_gaussian_wrapup(rng, mask, alpha, stats=None, features="one"):
    chosen = sample_features(rng, features)
    std = np.asarray(stats.std)[:, SIZE_AND_IAT][:, chosen]
    factor = np.ones((len(mask), 2), np.float32)
    factor[:, chosen] = 1 + 0.01 * alpha + np.sqrt(0.02 * alpha) * std * rng.standard_normal(std.shape)
    return {"factor": factor}


def sample_sine_wrapup(rng, mask, alpha, stats=None, features="one"):
    chosen = sample_features(rng, features)
    theta = rng.uniform(0, 2 * np.pi)
    wave = np.sin(4 * np.pi * np.arange(len(mask)) / len(mask) + theta)
    std = np.asarray(stats.flat_std)[SIZE_AND_IAT]
    return {"factor": (1 + 0.02 * alpha * chosen * std * wave[:, None]).astype(np.float32)}


def wrapup(x, mask, params, clip=(0.0, 1.0), pad=0.0, features="one"):
    """Gaussian and sine wrap-up: sizes and IATs times factor [T, 2]."""
    out, n = x.copy(), int(mask.sum())
    before = x[:n, SIZE_AND_IAT]
    after = before * params["factor"][:n]
    out[:n, SIZE_AND_IAT] = clipped(before, after, clip)
    return out, mask


def sample_constant_wrapup(rng, mask, alpha, stats=None):
    s = float(np.asarray(stats.flat_std)[2])
    return {"factor": np.float32(rng.uniform(1 + s * (0.06 - 0.02 * alpha), 1 + s * (0.14 + 0.02 * alpha)))}


def constant_wrapup(x, mask, params, clip=(0.0, 1.0), pad=0.0):
    out, n = x.copy(), int(mask.sum())
    after = x[:n, 2] * params["factor"]
    out[:n, 2] = clipped(x[:n, 2], after, clip)
    return out, mask


def sample_bernoulli_mask(rng, mask, alpha, stats=None, per_packet=False):
    u = rng.random((len(mask), 1 if per_packet else 3))
    return {"hidden": np.broadcast_to(u < 0.6 * alpha, (len(mask), 3))}


def bernoulli_mask(x, mask, params, pad=0.0, per_packet=False):
    hidden = params["hidden"] & mask[:, None]
    return np.where(hidden, np.asarray(pad, x.dtype), x), mask


def sample_window_mask(rng, mask, alpha, stats=None, rounding="floor"):
    n = int(mask.sum())
    widest = int(np.floor(1 + 2.5 * alpha + (0.5 if rounding == "nearest" else 0.0)))
    width = rng.integers(1, widest, endpoint=True)
    start = rng.integers(0, max(n - width, 0), endpoint=True)
    return {"start": np.int32(start), "width": np.int32(width)}


def window_mask(x, mask, params, pad=0.0, rounding="floor"):
    out, n = x.copy(), int(mask.sum())
    start, stop = int(params["start"]), int(params["start"] + params["width"])
    out[start : min(stop, n)] = pad
    return out, mask


SAMPLE = {
    "gaussian_noise": sample_gaussian_noise,
    "spike_noise": sample_spike_noise,
    "gaussian_wrapup": sample_gaussian_wrapup,
    "sine_wrapup": sample_sine_wrapup,
    "constant_wrapup": sample_constant_wrapup,
    "bernoulli_mask": sample_bernoulli_mask,
    "window_mask": sample_window_mask,
}
APPLY = {
    "gaussian_noise": gaussian_noise,
    "spike_noise": spike_noise,
    "gaussian_wrapup": wrapup,
    "sine_wrapup": wrapup,
    "constant_wrapup": constant_wrapup,
    "bernoulli_mask": bernoulli_mask,
    "window_mask": window_mask,
}
