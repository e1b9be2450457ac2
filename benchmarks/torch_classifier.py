"""The 1-D ResNet in plain PyTorch and the loop that trains it: the other side of `campaign.py --against torch`.

A loop as the public codes have it: one model at a time, one Python step a batch, the augmentation on the batch inside
the loop, validation after every epoch, early stopping with a copy of the best parameters. Two things are kinder than
there: the flows lie on the device as tensors (no DataLoader workers, no augmentation flow by flow in NumPy), and the
augmentations are the batched ones of `torch_augment.py`. Imported only with --against torch.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import statistics
import time
from typing import Any

import numpy as np
import torch
import torch_augment
from torch import nn
from torch.nn import functional as F

from jaxtraffic.classify.config import ClassifierConfig

EVALUATION_BATCH = 4096


def _convolution(inputs: int, outputs: int, taps: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(inputs, outputs, taps, stride, padding=taps // 2, bias=False), nn.BatchNorm1d(outputs)
    )


class Block(nn.Module):
    """Two convolutions, the first with stride 2, beside a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = _convolution(inputs, outputs, 3, 2)
        self.second = _convolution(outputs, outputs, 3, 1)
        self.shortcut = _convolution(inputs, outputs, 1, 2)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """[B, C, L] -> [B, outputs, (L - 1) // 2 + 1]."""
        return F.relu(self.second(F.relu(self.first(h))) + self.shortcut(h))


class ResNet(nn.Module):
    """The "resnet" of `jaxtraffic.nn.classifiers`, with its layers under the same names."""

    def __init__(self, classes: int, width: int = 64):
        super().__init__()
        self.stem = _convolution(3, width, 3, 1)
        self.stage1_block1 = Block(width, width)
        self.stage2_block1 = Block(width, 2 * width)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, T, 3] with zeros in padding -> logits [B, class]."""
        h = self.stage2_block1(self.stage1_block1(F.relu(self.stem(x.transpose(1, 2)))))
        return self.head(h.mean(2))

    def load_jax(self, params: dict[str, Any], state: dict[str, Any]) -> ResNet:
        """Itself, with the parameters and running statistics of the JAX model."""
        for name, own in params.items():
            if name == "head":
                _set(self.head.weight, own["kernel"].T)
                _set(self.head.bias, own["bias"])
                continue
            layer = self.get_submodule(name.replace("_block1_", "_block1."))
            _set(layer[0].weight, np.transpose(own["kernel"], (2, 1, 0)))
            _set(layer[1].weight, own["scale"])
            _set(layer[1].bias, own["shift"])
            _set(layer[1].running_mean, state[name]["mean"])
            _set(layer[1].running_var, state[name]["variance"])
        return self


def _set(target: torch.Tensor, value: Any) -> None:
    with torch.no_grad():
        target.copy_(torch.from_numpy(np.array(value)))


@dataclasses.dataclass(frozen=True)
class Side:
    """Flows of one side of a fold on the device: x [flow, T, 3], mask [flow, T], label [flow]."""

    x: torch.Tensor
    mask: torch.Tensor
    label: torch.Tensor


def put(sides: dict[str, tuple[np.ndarray, ...]]) -> dict[str, Side]:
    """The sides of a fold as tensors on torch's device."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    made = {}
    for name, (x, mask, label) in sides.items():
        tensors = (torch.from_numpy(np.array(array)).to(device) for array in (x, mask, label.astype(np.int64)))
        made[name] = Side(*tensors)
    return made


def train(config: ClassifierConfig, sides: dict[str, Side], classes: int, steps: int, seed: int) -> dict[str, Any]:
    """One run: trains, stops early, and judges the best parameters on the test flows.

    Args:
        config: baseline, or inject of one operation that `torch_augment` has.
        sides: train, validation and test.
        classes: outputs of the network.
        steps: of an epoch.
        seed: of everything.

    Returns:
        epochs, validation_accuracy and accuracy (on test).
    """
    torch.manual_seed(seed)
    flows, device = sides["train"], sides["train"].x.device
    model = ResNet(classes).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.max_epochs)
    augmentation = None if config.augmentation is None else torch_augment.program(config.augmentation.name)
    best, best_state, waited, reference = -1.0, None, 0, -1.0
    for epoch in range(config.max_epochs):
        model.train()
        order = torch.randperm(len(flows.label), device=device)
        for index in range(steps):
            # As in the campaign, the last batch is filled up from the beginning of the order.
            rows = order[(index * config.fresh + torch.arange(config.fresh, device=device)) % len(order)]
            take_step(model, optimizer, augmentation, config.copies, *(part[rows] for part in _parts(flows)))
        schedule.step()
        accuracy = judge(model, sides["validation"])
        if accuracy > best:
            best, best_state = accuracy, copy.deepcopy(model.state_dict())
        if accuracy > reference + config.threshold:
            reference, waited = accuracy, 0
        else:
            waited += 1
        epochs = epoch + 1
        if waited >= config.patience:
            break
    model.load_state_dict(best_state)
    return {"epochs": epochs, "validation_accuracy": best, "accuracy": judge(model, sides["test"])}


def _parts(side: Side) -> tuple[torch.Tensor, ...]:
    return side.x, side.mask, side.label


def take_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    augmentation: Any,
    copies: int,
    x: torch.Tensor,
    mask: torch.Tensor,
    label: torch.Tensor,
) -> None:
    """One optimiser step on a batch and its augmented copies, alpha ~ U[0, 1] for each flow."""
    if augmentation is not None:
        made = [augmentation(x, mask, torch.rand(len(x), device=x.device), None)[0] for _ in range(copies)]
        x, label = torch.cat([x, *made]), label.repeat(copies + 1)
    optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(model(x), label).backward()
    optimizer.step()


@torch.no_grad()
def judge(model: nn.Module, side: Side) -> float:
    """Accuracy on a side."""
    model.eval()
    batches = zip(side.x.split(EVALUATION_BATCH), side.label.split(EVALUATION_BATCH), strict=True)
    right = sum((model(x).argmax(1) == label).sum() for x, label in batches)
    return float(right) / len(side.label)


def settle_threads(asked: int | None, classes: int, side: Side, batch: int) -> int:
    """Sets torch's CPU threads to `asked`, or to the quicker of one and all cores for a training step."""
    if side.x.device.type != "cpu" or asked is not None:
        torch.set_num_threads(asked or torch.get_num_threads())
        return torch.get_num_threads()
    model = ResNet(classes)
    optimizer = torch.optim.AdamW(model.parameters())
    flows = tuple(part[:batch] for part in _parts(side))

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        figures = []
        for _ in range(4):
            clock = time.perf_counter()
            take_step(model, optimizer, None, 0, *flows)
            figures.append(time.perf_counter() - clock)
        return statistics.median(figures[1:])

    torch.set_num_threads(min({1, os.cpu_count() or 1}, key=seconds))
    return torch.get_num_threads()
