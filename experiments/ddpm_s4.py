"""Trains a class-conditional DDPM with an S4 backbone on packet series, samples it, judges it, and writes a report.

Claim (thesis, chapter 8, averages over its data sets): training XGBoost on DDPMS4's flows instead of real ones costs
2.09 points of weighted and 3.65 of macro F1; its discriminative score is 10.82 %.

    python experiments/ddpm_s4.py --dataset cesnet_quic

runs on a simulated stand-in where the real data is absent, and says so. Cost: about 6 minutes on 2 CPU cores (preset
tiny); the preset thesis is meant for an accelerator.
"""

from generative import Options, run_generative
from rich.console import Console

from jaxtraffic.command import command_line


def run(options: Options, console: Console) -> None:
    """Runs with DDPM where the options name no process."""
    run_generative(options, console, experiment="ddpm_s4", process="ddpm")


if __name__ == "__main__":
    command_line(Options, run, __doc__)
