"""Trained classifiers on disk, and what they say of flows."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtraffic import scaling
from jaxtraffic.errors import DataError
from jaxtraffic.nn.classifiers import make_classifier

_SEPARATOR = "|"


class Fitted(NamedTuple):
    """A trained classifier.

    Attributes:
        model: one of nn.CLASSIFIERS.
        params: nested dict of arrays.
        state: BatchNorm statistics.
        scale_high: log10 of the largest inter-arrival time, seconds.
        class_names: names of the outputs.
    """

    model: str
    params: Any
    state: Any
    scale_high: float
    class_names: tuple[str, ...]

    @property
    def scale(self) -> scaling.FeatureScaling:
        """The normalisation of its inputs."""
        return scaling.FeatureScaling(scaling.FEATURE_LOW, self.scale_high)

    def latent(self, x: np.ndarray, mask: np.ndarray, tile: int = 4096) -> np.ndarray:
        """What the last layer sees of normalised flows.

        Args:
            x: [flow, T, 3] features in [0, 1], as `scale` makes them.
            mask: [flow, T] bool.
            tile: flows at a time.

        Returns:
            [flow, feature] float32.
        """
        net = make_classifier(self.model, len(self.class_names), x.shape[1])
        run = jax.jit(lambda x, mask: net.apply(self.params, self.state, x, mask, train=False)[1])
        tile = min(tile, len(x))
        parts = []
        for start in range(0, len(x), tile):
            first = min(start, len(x) - tile)
            parts.append(np.asarray(run(x[first : first + tile], mask[first : first + tile]))[start - first :])
        return np.concatenate(parts)


def file_name(config: str, fold: int, seed: int) -> str:
    """Name of the file of a run's classifier."""
    return f"{config.replace('/', '_')}-fold{fold}-seed{seed}.npz"


def save_model(path: Path, fitted: Fitted) -> None:
    """Writes a classifier as .npz (plain arrays, no pickle), whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for root in ("params", "state"):
        for keys, leaf in jax.tree_util.tree_flatten_with_path(getattr(fitted, root))[0]:
            arrays[_SEPARATOR.join([root, *(str(key.key) for key in keys)])] = np.asarray(leaf)
    temporary = path.with_suffix(".tmp.npz")
    np.savez(
        temporary,
        model=np.array(fitted.model),
        scale_high=np.array(fitted.scale_high),
        class_names=np.array(fitted.class_names),
        **arrays,
    )
    os.replace(temporary, path)


def load_model(path: Path) -> Fitted:
    """Reads a classifier that `save` wrote.

    Raises:
        DataError: the file is absent or not such a file.
    """
    roots: dict[str, Any] = {"params": {}, "state": {}}
    try:
        with np.load(path, allow_pickle=False) as stored:
            for name in stored.files:
                if _SEPARATOR not in name:
                    continue
                # Parts of a list are numbered, and a number is no string to the network.
                *keys, last = (int(key) if key.isdigit() else key for key in name.split(_SEPARATOR))
                place = roots
                for key in keys:
                    place = place.setdefault(key, {})
                place[last] = stored[name]
            return Fitted(
                str(stored["model"]),
                roots["params"],
                roots["state"],
                float(stored["scale_high"]),
                tuple(str(name) for name in stored["class_names"]),
            )
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(path, f"not a stored classifier ({error})", remedy="train the campaign again") from error
