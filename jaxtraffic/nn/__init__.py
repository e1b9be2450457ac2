"""Networks: S4 mathematics and layer, denoiser, token network, adapters. The only room that imports flax."""

from jaxtraffic.nn.adapters import AdapterConfig, apply_adapters, count_parameters, init_adapters, merge
from jaxtraffic.nn.denoiser import DDPMS4, DenoiserConfig, is_state_space, make_denoiser
from jaxtraffic.nn.functional import functional
from jaxtraffic.nn.masked_net import MaskedNet, MaskedNetConfig, make_masked_net
from jaxtraffic.nn.s4 import S4
from jaxtraffic.nn.token_net import TokenNet, TokenNetConfig, make_token_net

__all__ = [
    "DDPMS4",
    "S4",
    "AdapterConfig",
    "DenoiserConfig",
    "MaskedNet",
    "MaskedNetConfig",
    "TokenNet",
    "TokenNetConfig",
    "apply_adapters",
    "count_parameters",
    "functional",
    "init_adapters",
    "is_state_space",
    "make_denoiser",
    "make_masked_net",
    "make_token_net",
    "merge",
]
