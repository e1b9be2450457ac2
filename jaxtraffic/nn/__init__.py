"""Networks: S4 mathematics, the S4 layer, the denoiser, adapters. The only room that imports flax."""

from jaxtraffic.nn.adapters import AdapterConfig, apply_adapters, count_parameters, init_adapters, merge
from jaxtraffic.nn.denoiser import DDPMS4, DenoiserConfig, is_state_space, make_denoiser
from jaxtraffic.nn.functional import functional
from jaxtraffic.nn.s4 import S4

__all__ = [
    "DDPMS4",
    "S4",
    "AdapterConfig",
    "DenoiserConfig",
    "apply_adapters",
    "count_parameters",
    "functional",
    "init_adapters",
    "is_state_space",
    "make_denoiser",
    "merge",
]
