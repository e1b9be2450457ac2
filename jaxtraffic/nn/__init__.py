"""Networks: S4 mathematics, the S4 layer and the denoiser. The only room that imports flax."""

from jaxtraffic.nn.denoiser import DDPMS4, DenoiserConfig, is_state_space, make_denoiser
from jaxtraffic.nn.functional import functional
from jaxtraffic.nn.s4 import S4

__all__ = ["DDPMS4", "S4", "DenoiserConfig", "functional", "is_state_space", "make_denoiser"]
