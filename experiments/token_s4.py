"""Trains an autoregressive token model with a causal S4 backbone on packet series, samples it, judges it, and reports.

Packet sizes are tokens (exact frequent sizes, bins of 16 bytes with a within-bin head for the rest, end of flow), so
that generated sizes are exact to the byte, and the model knows the probability of every flow. --model masked trains
masked diffusion over the same tokens instead, which knows a bound of it and fills in any packets given any others.

    python experiments/token_s4.py --dataset cesnet_quic

runs on a simulated stand-in where the real data is absent, and says so. A fifth of the training flows (whole captures)
says for how many epochs the likelihood of unseen flows stays within a standard error of its best; a new network is then
trained on all training flows for so many. Cost: some minutes on 2 CPU cores.
"""

from __future__ import annotations

import dataclasses
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from data_options import data_line, describe_data, load
from judging import JudgingOptions, check_judging, described_judging, judge_and_report, timing
from rich.console import Console

from jaxtraffic import datasets, generate, parallel, prng
from jaxtraffic.command import command_line
from jaxtraffic.command.run_folder import open_folder
from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import token_likelihood, token_runs
from jaxtraffic.generate.masked_config import MaskedConfig
from jaxtraffic.generate.masked_model import MaskedGenerator
from jaxtraffic.generate.token_config import TokenConfig
from jaxtraffic.generate.token_model import TokenGenerator
from jaxtraffic.information import observers
from jaxtraffic.series import concatenate
from jaxtraffic.train import ProgressReport


@dataclasses.dataclass(frozen=True)
class Options(JudgingOptions):
    """Command line. What is left out is as `TokenConfig` says, or `MaskedConfig`."""

    model: Literal["causal", "masked"] = "causal"
    """Packet after packet, or masked diffusion over the same tokens, which also fills in any packets."""
    epochs: int | None = None
    """Epochs at most; the schedule of the learning rate reaches to them."""
    fixed_epochs: int | None = None
    """Train for so many epochs, without holding flows out to find the number."""
    patience: int | None = None
    """Epochs in which flows held out are less likely than at their best, by a standard error, before training stops."""
    batch_size: int | None = None
    """Flows per step over all devices."""
    learning_rate: float | None = None
    """Peak learning rate."""
    class_dropout: float | None = None
    """Probability of hiding the label in training; above 0, or there is no p(x) without a label."""
    width: int | None = None
    """Channels of the network."""
    blocks: int | None = None
    """Blocks of the network."""
    dropout: float | None = None
    """Dropout in the blocks."""
    atom_share: float | None = None
    """Least share of the training packets for a size to have a token of its own."""
    iat: bool = False
    """Model inter-arrival times too (causal); samples.parquet then has them. What judges the flows looks at sizes only.
    """
    temperature: float = 1.0
    """Of sampling; 1 is the model."""
    devices: int | None = None
    """Use only the first so many devices."""
    out: Path | None = None
    """Run folder; default: runs/token_s4-<dataset>-<time>."""
    resume: bool = False
    """Go on with an interrupted run folder."""


def token_config(options: Options) -> TokenConfig | MaskedConfig:
    """The defaults with the options of the command line laid over them."""

    def over(part: Any, *names: str) -> Any:
        given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
        return dataclasses.replace(part, **given)

    if options.iat and options.model == "masked":
        raise ConfigError("--iat is for --model causal; masked diffusion knows no times")
    config = MaskedConfig() if options.model == "masked" else TokenConfig(iat=options.iat)
    return dataclasses.replace(
        over(config, "patience", "atom_share"),
        net=over(config.net, "width", "blocks", "dropout"),
        train=over(config.train, "epochs", "batch_size", "learning_rate", "class_dropout"),
    ).check()


def run(options: Options, console: Console) -> None:
    """Trains, samples and judges; writes the run folder of DESIGN.md."""
    mesh = parallel.make_mesh(devices=options.devices)
    config = token_config(options)
    if options.out is None and options.resume:
        raise ConfigError("--resume needs --out, the run folder that is meant")
    if not options.temperature > 0:
        raise ConfigError(f"--temperature must be above 0, got {options.temperature}")
    check_judging(options)
    flows, dropped = load(options)
    parts = datasets.split(flows, fold=options.fold, seed=options.seed)
    console.print(data_line(flows, parts), highlight=False)
    name = "masked_s4" if options.model == "masked" else "token_s4"
    folder = options.out or Path("runs") / f"{name}-{flows.name}-{datetime.now():%Y%m%d-%H%M%S}"
    described = {
        "experiment": name,
        "seed": options.seed,
        "tokens": dataclasses.asdict(config),
        "fixed_epochs": options.fixed_epochs,
        "temperature": options.temperature,
        "card": dataclasses.asdict(generate.DataCard.of(parts.train)),
        "data": describe_data(options, flows, dropped, **vars(parts)),
    } | described_judging(options)
    if not open_folder(folder, described, resume=options.resume):
        console.print(f"{folder} is complete: see {folder / 'report.html'}", highlight=False)
        return
    key = jax.random.key(options.seed)

    def told(line: dict[str, Any]) -> None:
        if "validation" in line:
            console.print(
                f"epoch {line['epoch']:.0f}  loss {line['loss']:.3f}  nats a flow held out {line['validation']:.2f}  "
                f"{line['flows_per_s']:,.0f} flows/s",
                highlight=False,
            )

    generator = token_runs.fit(
        config,
        parts.train,
        key=prng.stream(key, "train"),
        mesh=mesh,
        folder=folder,
        epochs=options.fixed_epochs,
        seed=options.seed,
        resume=options.resume,
        report=told,
    )
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    console.print(f"trained on all training flows for {last['epoch']:.0f} epochs", highlight=False)
    labels = np.asarray(parts.train.label)
    if options.num_samples is not None:
        labels = generator.draw_labels(options.num_samples, seed=options.seed)
    clock = time.perf_counter()
    shared = {"temperature": options.temperature, "mesh": mesh}
    with ProgressReport(console, "sampling", len(labels)) as progress:
        synthetic = generator.sample(prng.stream(key, "sample"), labels, report=progress.update, **shared)
    sampling_seconds = time.perf_counter() - clock
    larger = None
    if options.multiple > 1:
        again = np.tile(labels, options.multiple - 1)
        larger = concatenate([synthetic, generator.sample(prng.stream(key, "more"), again, **shared)])
    judge_and_report(
        options,
        console,
        folder,
        parts,
        synthetic,
        larger=larger,
        measured=timing(folder, len(labels), sampling_seconds) | likelihood(generator, parts),
        config=shown(json.loads((folder / "config.json").read_text()), generator),
    )


def likelihood(generator: TokenGenerator | MaskedGenerator, parts: datasets.Split) -> dict[str, float]:
    """What the likelihood says without further training: bits a packet, and what series tell of labels (nats).

    The information is that of the test flows under the mixture of the classes' likelihoods, in expectation a lower
    bound, since the model has not seen them. Of the masked model: bits a packet that its bound says, no fewer.
    """
    if isinstance(generator, MaskedGenerator):
        bound = generator.elbo(jax.random.key(0), parts.test, parts.test.label)
        bits = -bound.sum() / np.log(2) / np.asarray(parts.test.n_packets).sum()
        return {"likelihood.most_bits_per_packet_test": float(bits)}
    found = {
        f"likelihood.bits_per_packet_{name}": token_likelihood.bits_per_packet(
            generator.log_prob_steps, flows, labels=np.asarray(flows.label)
        ).value
        for name, flows in (("train", parts.train), ("test", parts.test))
    }
    told = token_likelihood.information(
        generator.log_prob_steps, parts.test, prior=np.array(generator.card.class_counts)
    )
    return found | {
        "information.mean": told.value,
        "information.stderr": told.stderr,
        "information.ceiling": observers.ceiling(generator.card.class_counts),
    }


def shown(config: dict[str, Any], generator: TokenGenerator | MaskedGenerator) -> dict[str, Any]:
    """config.json with the cards that the report shows beside it: model, training, device in words."""
    stored, device = config["tokens"], config["device"]
    rest = {name: value for name, value in stored.items() if name not in ("net", "train")}
    parameters = sum(leaf.size for leaf in jax.tree.leaves(generator.params))
    title = "masked token S4" if isinstance(generator, MaskedGenerator) else "token S4"
    model = {"title": title, "parameters": parameters, "symbols": generator.vocabulary.n_symbols}
    return config | {
        "model": model | stored["net"] | rest,
        "training": stored["train"],
        "device": f"{device['count']} x {device['kind']}",
    }


if __name__ == "__main__":
    command_line(Options, run, __doc__)
