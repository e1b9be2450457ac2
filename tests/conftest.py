"""Eight virtual CPU devices and strict dtype promotion for every test.

Tests run on the CPU also where an accelerator is present, so that they mean the same everywhere; those marked `gpu` run
with `JAXTRAFFIC_GPU_TESTS=1 pytest -m gpu`.
"""

import os

ON_ACCELERATOR = os.environ.get("JAXTRAFFIC_GPU_TESTS") == "1"
if not ON_ACCELERATOR:
    os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8").strip()

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Spreads a run of the whole suite over two processes, file by file, where pytest-xdist is installed.

    Runs of single files or folders stay in one process, and so do runs that ask for a number of processes themselves.
    """
    chosen = any(not argument.startswith("-") for argument in config.invocation_params.args)
    inside = "PYTEST_XDIST_WORKER" in os.environ
    if chosen or inside or ON_ACCELERATOR or config.option.usepdb or not config.pluginmanager.hasplugin("xdist"):
        return
    if config.option.numprocesses is None:
        config.option.numprocesses, config.option.dist = 2, "loadfile"


def pytest_collection_modifyitems(items):
    """Skips what needs an accelerator where there is none or it was not asked for."""
    if not ON_ACCELERATOR or jax.default_backend() == "cpu":
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs an accelerator and JAXTRAFFIC_GPU_TESTS=1"))
