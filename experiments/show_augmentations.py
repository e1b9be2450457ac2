"""Draws what every augmentation does to one flow: original in black, augmented in red, as the papers' tables do.

    python experiments/show_augmentations.py --dataset cesnet_quic
    python experiments/show_augmentations.py --dataset iot_sentinel --data-root DIR --class-name HueBridge --alpha 0.8

Writes gallery.png, all augmentations on one sheet, and augmentations.html, a self-contained page with several draws of
each, its definition and source, and the share of the data set's flows that it changes. Runs on a simulated stand-in
where the real data is absent, and says so. Cost: under a minute on 2 CPU cores.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jaxtraffic import augment, datasets, prng, scaling
from jaxtraffic.command import command_line
from jaxtraffic.errors import ConfigError
from jaxtraffic.report import augmentation_pages as pages
from jaxtraffic.report.augmentation_pages import DrawnFlow, ShownAugmentation
from jaxtraffic.series import PacketSeries

POOL = 64
"""Draws of which the first ones that change the flow are shown."""
MOST_DRAWS = 6
STACKED = ("translation", "wrap", "permutation")
"""The three that PAM'24 combines (its table 7)."""
COMPOSITIONS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "sequential": (augment.sequential, {}),
    # Each flow draws for itself: flows of a block choose together, and a share over flows would count blocks.
    "ensemble": (augment.ensemble, {"blocks": 0}),
    "random_stack": (augment.random_stack, {"blocks": 0}),
    "masked_stack": (augment.masked_stack, {"blocks": 0}),
}
FAMILIES = ("amplitude", "masking", "batch", "sequence", "composition")


@dataclasses.dataclass(frozen=True)
class Options:
    """Command line of the gallery."""

    dataset: str = "cesnet_quic"
    """Data set: cesnet_quic, parquet together with --path, or the name of a parquet file in the data root."""
    data_root: Path | None = None
    """Folder of the raw data sets; default: the environment variable JAXTRAFFIC_DATA, else the user's cache."""
    path: Path | None = None
    """File or folder to read instead of searching the data root."""
    max_flows: int = 50_000
    """Keep at most so many flows, drawn in proportion to the classes."""
    real: bool = False
    """Refuse to run on a simulated stand-in."""
    flow: int | None = None
    """Index of the flow to draw, among those kept; default: a typical flow that leaves room for more packets."""
    class_name: str | None = None
    """Class to take a typical flow from; default: the most frequent class."""
    alpha: float = 0.5
    """Magnitude in [0, 1]; PAM'24 compares augmentations at 0.5."""
    draws: int = 3
    """Draws of each augmentation on the page, 1 to 6; the gallery shows the first."""
    seed: int = 0
    """Seed of every draw and of the partner for cutmix."""
    out: Path | None = None
    """Folder of gallery.png and augmentations.html; default: runs/augmentations-<dataset>."""


def show_augmentations(options: Options, console: Console) -> None:
    """Loads the flows, augments one of them, measures how many change, and writes the gallery and the page."""
    if not 0 <= options.alpha <= 1:
        raise ConfigError(f"--alpha {options.alpha}: the magnitude lies in [0, 1]")
    if not 1 <= options.draws <= MOST_DRAWS:
        raise ConfigError(f"--draws {options.draws}: give 1 to {MOST_DRAWS}")
    if options.flow is not None and options.class_name is not None:
        raise ConfigError("give --flow or --class-name, not both: a flow has its class")
    flows = _load(options)
    raw, mask = flows.arrays()
    scale = scaling.fit_features(raw, mask)
    scaled = np.asarray(scale.apply(raw, mask))
    index = _choose_flow(options, flows, scaled, mask)
    partner = _choose_partner(options.seed, flows, index)
    notice = datasets.stand_in_notice(options.dataset) if datasets.is_stand_in(options.dataset, flows) else ""
    facts = _facts(options, flows, index, partner, scale)
    console.print(f"{flows.name} ({flows.source}): {len(flows):,} flows of {len(flows.class_names)} classes")
    for title in ("Flow", "Class", "Seed", "Magnitude"):
        console.print(f"{title.lower()}: {facts[title]}", markup=False, highlight=False)
    folder = options.out or Path("runs") / f"augmentations-{flows.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be written: {error.strerror or error}; choose another") from error
    stats = scaling.class_statistics(scaled, mask, np.asarray(flows.label), len(flows.class_names))
    key, many = jax.random.key(options.seed), np.concatenate([np.arange(len(flows)), np.full(POOL, index)])
    arrays = raw[many], scaled[many], mask[many]
    of_class, pair = stats[flows.label[many]], np.array([index, partner])

    def run(alpha: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
        return jax.device_get(_program()(key, *arrays, alpha, of_class, pair, size_layer=flows.size_layer))

    drawn, at_alpha = run(np.full(len(many), options.alpha, np.float32))
    _, at_any = run(np.asarray(jax.random.uniform(prng.stream(key, "alpha"), (len(many),))))
    changed = {f"alpha = {options.alpha:g}": at_alpha, "alpha ~ U[0, 1]": at_any}
    before = {"raw": DrawnFlow(raw[index], mask[index])}
    before["scaled"] = DrawnFlow(np.asarray(scale.invert(scaled[index], mask[index])), mask[index])
    shown = []
    for name, op in _operations(flows.size_layer).items():
        x, new = drawn[name]
        x = np.asarray(scale.invert(x, new)) if op.needs_stats else x
        shares = {words: float(share[name]) for words, share in changed.items()}
        given = before["scaled" if op.needs_stats else "raw"]
        shown.append(_shown(name, op, given, x, new, DrawnFlow(raw[partner], mask[partner]), shares, options.draws))
    console.print(pages.augmentation_table(shown))
    gallery, page = pages.write_augmentations(
        folder,
        shown,
        data_name=flows.name,
        source=flows.source,
        notice=notice,
        facts=facts,
        gallery_lines=[
            f"Flow {facts['Flow']}; class {facts['Class']}. Magnitude {facts['Magnitude']}, seed {options.seed}.",
            f"Compositions of {', '.join(STACKED)}. First draw that changes the flow. n: packets.",
        ],
        notes=_notes(scale),
        command=shlex.join(["python", *sys.argv]),
    )
    console.print(f"gallery: {gallery}", highlight=False, soft_wrap=True)
    console.print(f"page: {page}", highlight=False, soft_wrap=True)


def _operations(size_layer: str) -> dict[str, Any]:
    """Operations by name, by family, and the compositions; sizes that are payload hold no headers."""
    entries = sorted(
        augment.AUGMENTATIONS.values(), key=lambda entry: (FAMILIES.index(entry.family), not entry.in_paper)
    )
    operations = {entry.name: entry.op for entry in entries}
    if size_layer == "payload":
        operations["mss_variation"] = augment.mss_variation.with_options(header=0)
    parts = [augment.get(name) for name in STACKED]
    return operations | {name: compose(*parts, **options) for name, (compose, options) in COMPOSITIONS.items()}


@functools.cache
def _program() -> Callable[..., Any]:
    """`_augment`, jitted. It runs twice: on a CPU optimising it takes far longer than it saves."""
    quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(_augment, static_argnames="size_layer", compiler_options=quick)


def _augment(
    key: jax.Array,
    raw: jax.Array,
    scaled: jax.Array,
    mask: jax.Array,
    alpha: jax.Array,
    stats: Any,
    pair: jax.Array,
    *,
    size_layer: str,
) -> tuple[dict[str, Any], dict[str, jax.Array]]:
    """Every operation on N flows, followed by POOL copies of the flow to draw; one program for both.

    Args:
        key: typed key.
        raw: [N + POOL, T, 3] bytes and seconds.
        scaled: [N + POOL, T, 3] normalised features.
        mask: [N + POOL, T] bool.
        alpha: [N + POOL].
        stats: statistics of each flow's class, leaves [N + POOL, ...].
        pair: [2] indices of the flow to draw and its partner.
        size_layer: of the flows, "ip" or "payload".

    Returns:
        By operation: (x [POOL, T, 3], mask [POOL, T]) of the copies, and the share of the N flows that it changes.
    """
    count = len(raw) - POOL
    drawn, shares = {}, {}
    for name, op in _operations(size_layer).items():
        own = prng.stream(key, name)
        if op.batch:
            y, new = augment.batched(op)(own, raw[:count], mask[:count])
            pairs = jax.vmap(lambda key, op=op: augment.batched(op)(key, raw[pair], mask[pair]))
            many, masks = pairs(jax.random.split(prng.stream(own, "pair"), POOL))
            drawn[name] = many[:, 0], masks[:, 0]
        else:
            x, given = (scaled, stats) if op.needs_stats else (raw, None)
            y, new = augment.batched(op)(own, x, mask, alpha, stats=given)
            drawn[name] = y[count:], new[count:]
        x = scaled if op.needs_stats else raw
        shares[name] = augment.changed_fraction(x[:count], mask[:count], y[:count], new[:count])
    return drawn, shares


def _load(options: Options) -> PacketSeries:
    return datasets.load(
        options.dataset,
        data_root=options.data_root,
        path=options.path,
        max_flows=options.max_flows,
        seed=options.seed,
        real=options.real,
    )


def _choose_flow(options: Options, flows: PacketSeries, scaled: np.ndarray, mask: np.ndarray) -> int:
    """The flow asked for, else the one of a class that is nearest to the median of its class.

    Flows of 60 to 85 % of the packet positions come first, so that one sees them grow and shrink; where a class has
    none, its longest flows.
    """
    label, count = np.asarray(flows.label), mask.sum(axis=1)
    if options.flow is not None:
        if not 0 <= options.flow < len(flows):
            raise ConfigError(f"--flow {options.flow}: {flows.name} has the flows 0 to {len(flows) - 1} here")
        return options.flow
    roomy = (count >= 0.6 * flows.length) & (count <= 0.85 * flows.length)
    if options.class_name is None:
        chosen = int(np.argmax(np.bincount(label[roomy] if roomy.any() else label)))
    elif options.class_name in flows.class_names:
        chosen = flows.class_names.index(options.class_name)
    else:
        names = ", ".join(flows.class_names[:12]) + (", ..." if len(flows.class_names) > 12 else "")
        raise ConfigError(f"--class-name {options.class_name!r} is no class of {flows.name}; its classes: {names}")
    members = np.flatnonzero((label == chosen) & roomy)
    if not len(members):
        members = np.flatnonzero(label == chosen)
        members = members[count[members] == count[members].max(initial=0)]
    if not len(members):
        raise ConfigError(f"--class-name {options.class_name!r} has no flow among those kept; raise --max-flows")
    values = np.stack([scaled[members][..., 0] * scaled[members][..., 1], scaled[members][..., 2]], axis=-1)
    values = np.where(mask[members][..., None], values, np.nan)
    seen = mask[members].any(axis=0)
    middle = np.nanmedian(values[:, seen], axis=0)
    distance = np.nanmean(np.abs(values[:, seen] - middle), axis=(1, 2))
    return int(members[np.argmin(distance)])


def _choose_partner(seed: int, flows: PacketSeries, index: int) -> int:
    """A flow of another class and of at least half the packet positions, where there is one; drawn by the seed."""
    label, count = np.asarray(flows.label), np.asarray(flows.n_packets)
    other = np.arange(len(flows)) != index
    for wanted in (other & (label != label[index]) & (2 * count >= flows.length), other):
        if wanted.any():
            return int(np.random.default_rng(seed).choice(np.flatnonzero(wanted)))
    return index


def _shown(
    name: str,
    op: Any,
    before: DrawnFlow,
    x: np.ndarray,
    mask: np.ndarray,
    partner: DrawnFlow,
    changed: Mapping[str, float],
    draws: int,
) -> ShownAugmentation:
    """Takes the first different draws x [POOL, T, 3], mask [POOL, T] that change the flow, or one that does not."""
    results: dict[bytes, DrawnFlow] = {}
    unchanged = _bits(before)
    count = 0
    for one in range(len(x)):
        flow = DrawnFlow(x[one], mask[one])
        if (bits := _bits(flow)) != unchanged:
            count += 1
            results.setdefault(bits, flow)
    after = list(results.values())[:draws] or [DrawnFlow(x[0], mask[0])]
    entry = augment.AUGMENTATIONS.get(name)
    units = "normalised features, drawn in bytes and seconds" if op.needs_stats else "bytes and seconds"
    if entry is not None and op != entry.op:
        given = {field.name: getattr(op, field.name) for field in dataclasses.fields(op)}
        units += "".join(f", {key}={value}" for key, value in given.items() if value != getattr(entry.op, key))
    return ShownAugmentation(
        name=name,
        family="composition" if entry is None else entry.family,
        before=before,
        after=after,
        changed=changed,
        drawn=(len(x), count),
        documentation=inspect.getdoc(COMPOSITIONS[name][0]) if entry is None else op.__doc__,
        source="PAM'24, combining augmentations; here " + op.name if entry is None else entry.source,
        traits={} if entry is None else {trait: getattr(entry, trait) for trait in pages.TRAITS},
        in_paper=entry is None or entry.in_paper,
        partner=partner if op.batch else None,
        units=units,
    )


def _bits(flow: DrawnFlow) -> bytes:
    return np.where(flow.mask[:, None], flow.x, 0).astype(np.float32).tobytes() + flow.mask.tobytes()


def _facts(
    options: Options, flows: PacketSeries, index: int, partner: int, scale: scaling.FeatureScaling
) -> dict[str, Any]:
    count, label = np.asarray(flows.n_packets), np.asarray(flows.label)
    name = flows.class_names
    layer = {"ip": "IP total length", "payload": "transport payload"}[flows.size_layer]
    return {
        "Data set": f"{flows.name}, {flows.source}: {len(flows):,} flows of {len(name)} classes",
        "Flow": f"number {index} of {len(flows):,} (from 0), {count[index]} packets among the first {flows.length}",
        "Class": f"{name[label[index]]}",
        "Partner for cutmix": f"flow {partner}, {count[partner]} packets, class {name[label[partner]]}",
        "Magnitude": f"alpha = {options.alpha:g}",
        "Seed": str(options.seed),
        "Packet sizes": f"{layer}, bytes",
        "Normalisation": f"size to 1460 bytes, log10 of IATs from 1e-7 s to {10**scale.high:.3g} s (99 % quantile)",
    }


def _notes(scale: scaling.FeatureScaling) -> list[str]:
    return [
        "Bars above 0 come from the client, bars below 0 from the server. Black and red stand side by side at each "
        "packet position, so that equal pairs are positions that the augmentation left alone. IATs are on a "
        f"logarithmic scale, linear below 0.01 ms. Of {POOL} draws the first different ones that change the flow are "
        "shown.",
        "Operations that take statistics work on normalised features, as in PAM'24; they are drawn in bytes and "
        f"milliseconds again, with sizes cut at 1460 bytes and IATs at {10**scale.high:.3g} s in black as in red. All "
        "others are given bytes and seconds as they are, with 0 for what they hide.",
    ]


if __name__ == "__main__":
    command_line(Options, show_augmentations, __doc__)
