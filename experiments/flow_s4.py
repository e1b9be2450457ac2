"""Trains a class-conditional rectified flow with an S4 backbone on packet series, samples it, judges it, and reports.

Measured (simulated stand-in, preset tiny, one seed, 10 % of the labels hidden): weighted and macro F1 of XGBoost fall
by 12.3 and 18.9 points where it is trained on these flows instead of real ones; 9.3 and 13.9 with ddpm_s4.py at the
same number of steps and no label hidden. No paper has this row, and a longer training was not tried.

    python experiments/flow_s4.py --dataset cesnet_quic
    python experiments/flow_s4.py --dataset cesnet_quic --information       # what generated flows tell of their class
    python experiments/flow_s4.py --dataset cesnet_quic --reflow 1 --solver euler --sampling-steps 10

runs on a simulated stand-in where the real data is absent, and says so. Cost: about 5 minutes on 2 CPU cores (preset
tiny), --information twice the sampling, a round of reflow as much training again; the preset thesis is meant
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
