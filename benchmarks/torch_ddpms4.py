"""DDPMS4 in plain PyTorch, the way the public codes are built: the other side of `--against torch`.

The architecture is that of `jaxtraffic.nn.denoiser`, and parameters are copied from it. What differs is what the
public S4 diffusion codes do: every forward pass makes the convolution kernels anew, from the truncated generating
function of the DPLR state space, and applies them by FFT; as there, the truncated output vector C (I - A^L) is the
stored parameter. Written from the mathematics (Gu et al. 2022, appendix C), eager, no custom kernels.
Imported only with --against torch.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from jaxtraffic import scaling
from jaxtraffic.generate.config import GeneratorConfig
from jaxtraffic.nn import DenoiserConfig
from jaxtraffic.train.state import STATE_SPACE_RATE


class S4(nn.Module):
    """y = K * u + D u with a DPLR kernel made in every forward pass; u [batch, L, channel]."""

    def __init__(self, config: DenoiserConfig, length: int):
        super().__init__()
        width, half, directions = config.width, config.state // 2, 2 if config.bidirectional else 1
        self.length = length
        self.log_neg_re = nn.Parameter(torch.zeros(width, half))
        self.im = nn.Parameter(torch.zeros(width, half))
        self.b = nn.Parameter(torch.zeros(width, half, 2))
        self.c = nn.Parameter(torch.zeros(directions, width, half, 2))
        self.p = nn.Parameter(torch.zeros(width, half, 2))
        self.d = nn.Parameter(torch.zeros(width))
        self.log_dt = nn.Parameter(torch.zeros(width))
        angle = -2 * torch.pi * torch.arange(length // 2 + 1, dtype=torch.float64) / length
        self.register_buffer("root", torch.polar(torch.ones_like(angle), angle).to(torch.complex64), persistent=False)

    def kernel(self) -> torch.Tensor:
        """[direction, channel, L] real."""

        def both(half: torch.Tensor) -> torch.Tensor:
            return torch.cat([half, half.conj()], dim=-1)

        lam = both(torch.complex(-self.log_neg_re.exp(), self.im))
        b, c, p = (both(torch.view_as_complex(pair)) for pair in (self.b, self.c, self.p))
        rate = 2 * torch.exp(-self.log_dt)[:, None, None]
        # Multiplied through by 1 + w, so that the Nyquist root of an even L is no pole.
        resolvent = 1 / (rate * (1 - self.root) - lam[..., None] * (1 + self.root))

        def inner(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return torch.einsum("...hn,hnk->...hk", u * v, resolvent)

        plus = 1 + self.root
        low_rank = 1 + plus * inner(p.conj(), p)
        spectrum = 2 * (inner(c, b) - plus * inner(c, p) * inner(p.conj(), b) / low_rank)
        return torch.fft.irfft(spectrum, n=self.length)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """u [batch, L, channel] -> [batch, L, channel]."""
        length, kernel = self.length, self.kernel()
        taps = F.pad(kernel[0], (0, length))
        if kernel.shape[0] == 2:
            taps = taps + F.pad(kernel[1].flip(-1), (length, 0))
        series = u.float().transpose(1, 2)
        full = torch.fft.irfft(torch.fft.rfft(series, n=2 * length) * torch.fft.rfft(taps), n=2 * length)
        return full[..., :length].transpose(1, 2).to(u.dtype) + self.d.to(u.dtype) * u


class Block(nn.Module):
    """One adaLN-Zero block."""

    def __init__(self, config: DenoiserConfig, length: int):
        super().__init__()
        width, hidden = config.width, round(config.mlp_ratio * config.width)
        self.glu = config.glu
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.s4 = S4(config, length)
        self.mix = nn.Linear(width, 2 * width if config.glu else width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.modulation = nn.Linear(config.embedding, 6 * width)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """x [batch, L, width], condition [batch, embedding] -> [batch, L, width]."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(condition))[:, None].chunk(6, dim=-1)
        mixed = self.mix(F.gelu(self.s4(self.norm1(x) * (1 + scale1) + shift1), approximate="tanh"))
        x = x + gate1 * (F.glu(mixed) if self.glu else mixed)
        hidden = F.gelu(self.up(self.norm2(x) * (1 + scale2) + shift2), approximate="tanh")
        return x + gate2 * self.down(hidden)


class DDPMS4(nn.Module):
    """x [batch, L], t [batch], label [batch] -> prediction [batch, L]."""

    def __init__(self, config: DenoiserConfig, n_classes: int, length: int):
        super().__init__()
        if config.space != "dplr" or config.method != "bilinear":
            raise ValueError("the torch model has the state space dplr with the bilinear method only")
        self.project = nn.Linear(1, config.width)
        self.position = nn.Parameter(torch.zeros(length, config.width)) if config.position_embedding else None
        self.time1 = nn.Linear(config.embedding, config.embedding)
        self.time2 = nn.Linear(config.embedding, config.embedding)
        self.classes = nn.Embedding(n_classes + 1, config.embedding)
        self.blocks = nn.ModuleList([Block(config, length) for _ in range(config.blocks)])
        self.norm = nn.LayerNorm(config.width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(config.embedding, 2 * config.width)
        self.out = nn.Linear(config.width, 1)
        half = config.embedding // 2
        frequency = torch.exp(-np.log(1e4) * torch.arange(half, dtype=torch.float64) / half).float()
        self.register_buffer("frequency", frequency, persistent=False)

    def forward(self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Predicts noise or velocity."""
        angle = t.float()[:, None] * self.frequency
        time = self.time2(F.silu(self.time1(torch.cat([angle.cos(), angle.sin()], dim=-1))))
        condition = time + self.classes(label)
        hidden = self.project(x[..., None])
        if self.position is not None:
            hidden = hidden + self.position
        hidden = F.silu(hidden)
        for block in self.blocks:
            hidden = block(hidden, condition)
        shift, scale = self.modulation(F.silu(condition))[:, None].chunk(2, dim=-1)
        return self.out(self.norm(hidden) * (1 + scale) + shift)[..., 0]


def copy_parameters(model: DDPMS4, params: Any, length: int) -> DDPMS4:
    """Fills the model with the parameters (nested dict) of a `jaxtraffic` DDPMS4."""
    state = {}

    def visit(tree: Any, path: tuple[str, ...]) -> None:
        if isinstance(tree, dict):
            if "log_dt" in tree:
                tree = tree | {"c": truncated_output(tree, length)}
            for name, part in tree.items():
                visit(part, (*path, str(name)))
            return
        leaf = np.array(tree, np.float32)
        last = {"kernel": "weight", "embedding": "weight"}.get(path[-1], path[-1])
        state[".".join((*path[:-1], last))] = torch.from_numpy(leaf.T.copy() if path[-1] == "kernel" else leaf)

    visit(params, ())
    model.load_state_dict(state)
    return model


def truncated_output(s4: dict[str, Any], length: int) -> np.ndarray:
    """C (I - A^L) [direction, channel, n, 2] in float64, A the dense bilinear discretisation over both halves."""

    def both(half: np.ndarray) -> np.ndarray:
        return np.concatenate([half, half.conj()], axis=-1)

    pairs = {name: np.asarray(s4[name], np.float64) @ np.array([1, 1j]) for name in ("c", "p")}
    lam = both(-np.exp(np.asarray(s4["log_neg_re"], np.float64)) + 1j * np.asarray(s4["im"], np.float64))
    c, p, identity = both(pairs["c"]), both(pairs["p"]), np.eye(lam.shape[-1])
    half_step = 0.5 * np.exp(np.asarray(s4["log_dt"], np.float64))[:, None, None]
    a = lam[..., None] * identity - p[..., None] * p.conj()[..., None, :]
    discrete = np.linalg.solve(identity - half_step * a, identity + half_step * a)
    moved = np.einsum("dhm,hmn->dhn", c, np.linalg.matrix_power(discrete, length))
    kept = (c - moved)[..., : pairs["c"].shape[-1]]
    return np.stack([kept.real, kept.imag], axis=-1)


class TorchGenerator:
    """Training and sampling loops around the model, on the first GPU where torch sees one."""

    def __init__(self, generator: Any, params: Any, *, device: str | None = None, compiled: bool = False):
        """Copies configuration, parameters, schedule and scale of a `jaxtraffic` Generator."""
        self.config: GeneratorConfig = generator.config
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.length, self.no_class = generator.card.length, generator.no_class
        model = DDPMS4(self.config.denoiser, self.no_class, self.length)
        self.model = copy_parameters(model, params, self.length).to(self.device)
        self.network = torch.compile(self.model) if compiled else self.model
        self.schedule = {name: self._tensor(leaf) for name, leaf in generator.schedule._asdict().items()}
        self.scale = generator.scale
        self.quantile = isinstance(self.scale, scaling.QuantileScaling)
        if self.quantile:
            self.z, self.cdf = self._tensor(self.scale.z), self._tensor(self.scale.cdf)
            self.low, self.boundaries = int(self.scale.low), self.z[:, 1:].contiguous()
        self.bound = float(self.scale.bound)

    def _tensor(self, leaf: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(leaf)).to(self.device)

    def predict(self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """The network, in bfloat16 by autocast where the configuration asks for it."""
        half = self.config.denoiser.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if half else contextlib.nullcontext():
            return self.network(x, t, label).float()

    def scaled(self, signed: torch.Tensor) -> torch.Tensor:
        """Signed sizes [batch, L] -> the scale the network sees."""
        if not self.quantile:
            return signed.float() / scaling.LINEAR_BYTES
        position = torch.arange(self.length, device=self.device)
        index = (signed.long() - self.low).clamp(0, self.z.shape[1] - 2)
        below, above = self.cdf[position, index], self.cdf[position, index + 1]
        uniform = below + (above - below) * torch.rand(below.shape, device=self.device)
        return torch.special.ndtri(uniform).clamp(self.z[position, index], self.z[position, index + 1])

    def inverted(self, x: torch.Tensor) -> torch.Tensor:
        """The network's scale -> signed sizes [batch, L] int16."""
        if not self.quantile:
            return (x * scaling.LINEAR_BYTES).round().to(torch.int16)
        index = torch.searchsorted(self.boundaries, x.T.contiguous()).clamp(max=self.z.shape[1] - 2)
        return (index.T + self.low).to(torch.int16)

    @torch.no_grad()
    def sample(self, label: np.ndarray) -> np.ndarray:
        """Ancestral sampling of one block: labels [batch] -> signed sizes [batch, L] on the host."""
        epsilon = self.config.diffusion.prediction == "epsilon"
        labels = self._tensor(label).long()
        x = torch.randn(len(label), self.length, device=self.device)
        for t in reversed(range(self.config.diffusion.steps)):
            s = {name: field[t] for name, field in self.schedule.items()}
            out = self.predict(x, torch.full_like(labels, t), labels)
            x0 = (x - s["noise"] * out) / s["signal"] if epsilon else s["signal"] * x - s["noise"] * out
            if self.config.diffusion.clip_x0:
                x0 = x0.clamp(-self.bound, self.bound)
            x = s["from_x0"] * x0 + s["from_xt"] * x + s["deviation"] * torch.randn_like(x)
        return self.inverted(x).cpu().numpy()

    def start_training(self, flows: dict[str, np.ndarray], total_steps: int) -> None:
        """Puts the flows on the device and makes the optimiser: AdamW, warm-up and cosine, slower state spaces."""
        train = self.config.train
        self.flows = {name: self._tensor(leaf) for name, leaf in flows.items()}
        named = list(self.model.named_parameters())
        space = [p for name, p in named if ".s4." in name]
        vectors = [p for name, p in named if ".s4." not in name and p.ndim < 2]
        matrices = [p for name, p in named if ".s4." not in name and p.ndim >= 2]
        rate = train.learning_rate
        self.optimizer = torch.optim.AdamW(
            [
                {"params": space, "lr": min(rate, STATE_SPACE_RATE), "weight_decay": 0.0},
                {"params": vectors, "lr": rate, "weight_decay": 0.0},
                {"params": matrices, "lr": rate, "weight_decay": train.weight_decay},
            ]
        )
        warmup = max(1, round(train.warmup * total_steps))
        self.rate = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda k: (
                (k + 1) / warmup
                if k < warmup
                else 0.5 * (1 + np.cos(np.pi * min(1, (k - warmup) / (total_steps - warmup))))
            ),
        )
        self.ema = [p.detach().clone() for _, p in named] if train.ema else None

    def train_steps(self, steps: int, batch_size: int) -> np.ndarray:
        """Takes so many optimiser steps on random batches; losses [step], read from the device once at the end."""
        losses = []
        for _ in range(steps):
            index = torch.randint(len(self.flows["label"]), (batch_size,), device=self.device)
            loss = self.loss(self.flows["signed_size"][index], self.flows["label"][index].long())
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.clip_norm)
            self.optimizer.step()
            self.rate.step()
            if self.ema is not None:
                with torch.no_grad():
                    torch._foreach_lerp_(self.ema, list(self.model.parameters()), 1 - self.config.train.ema)
            losses.append(loss.detach())
        return torch.stack(losses).cpu().numpy()

    def loss(self, signed: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """The simple diffusion loss of one batch."""
        x0, s = self.scaled(signed), self.schedule
        t = torch.randint(self.config.diffusion.steps, label.shape, device=self.device)
        eps = torch.randn_like(x0)
        signal, noise = s["signal"][t][:, None], s["noise"][t][:, None]
        target = eps if self.config.diffusion.prediction == "epsilon" else signal * eps - noise * x0
        return F.mse_loss(self.predict(signal * x0 + noise * eps, t, label), target)


def prepare_backend(matmul: str) -> None:
    """Sets torch's float32 product precision ("high" is TF32 on NVIDIA GPUs, JAX's default there)."""
    torch.set_float32_matmul_precision(matmul)


def settle_threads(model: TorchGenerator, batch: int, asked: int | None) -> int:
    """Sets torch's CPU threads to `asked`, or to the quicker of one and all cores, and returns their number.

    On a machine that does other work, torch's barriers between threads can cost more than fifty times what they gain.
    """
    x = torch.zeros(batch, model.length, device=model.device)
    t = torch.zeros(batch, dtype=torch.long, device=model.device)

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        figures = []
        with torch.no_grad():
            for _ in range(4):
                clock = time.perf_counter()
                model.predict(x, t, t)
                figures.append(time.perf_counter() - clock)
        return statistics.median(figures[1:])

    choices = {1, os.cpu_count() or 1} if asked is None and model.device.type == "cpu" else set()
    chosen = min(choices, key=seconds) if choices else asked or torch.get_num_threads()
    torch.set_num_threads(chosen)
    return chosen


def peak_bytes() -> int | None:
    """High-water mark of torch's device memory, or None on CPU."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def release() -> None:
    """Gives cached device memory back, so that the next framework finds it free."""
    import gc

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
