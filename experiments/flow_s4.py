"""Trains a class-conditional rectified flow with an S4 backbone on packet series, samples it, judges it, and reports.

Claim (ours; no paper has this row): on the same backbone, training steps and scale, a rectified flow sampled with 50
Heun steps (as many passes of the network as DDPM's 100 steps) is as useful to XGBoost as DDPMS4 (experiments/ddpm_s4.py
writes the figure to compare with), and it also takes fewer steps.

    python experiments/flow_s4.py --dataset cesnet_quic
    python experiments/flow_s4.py --dataset cesnet_quic --information       # what generated flows tell of their class
    python experiments/flow_s4.py --dataset cesnet_quic --reflow 1 --solver euler --sampling-steps 10

runs on a simulated stand-in where the real data is absent, and says so. Cost: about 6 minutes on 2 CPU cores (preset
tiny), --information half as much sampling again, a round of reflow as much training again; the preset thesis is meant
for an accelerator. --process vp and --process edm train the other processes here as well as in ddpm_s4.py.
"""

from generative import Options, run_generative
from rich.console import Console

from jaxtraffic.command import command_line


def run(options: Options, console: Console) -> None:
    """Runs with rectified flow where the options name no process."""
    run_generative(options, console, experiment="flow_s4", process="flow")


if __name__ == "__main__":
    command_line(Options, run, __doc__)
