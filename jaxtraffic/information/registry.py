"""The estimators by name."""

from __future__ import annotations

from jaxtraffic.errors import ConfigError
from jaxtraffic.information.cca import CCA
from jaxtraffic.information.critics import INFONCE, MINE, NWJ, SMILE
from jaxtraffic.information.doe import DOE
from jaxtraffic.information.flow_estimator import RF
from jaxtraffic.information.ksg import KSG
from jaxtraffic.information.minde import DDPM
from jaxtraffic.information.result import Method

METHODS: dict[str, Method] = {method.name: method for method in (RF, DDPM, MINE, INFONCE, NWJ, SMILE, DOE, KSG, CCA)}


def method_named(name: str) -> Method:
    """The method called `name`.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}; choose from {', '.join(METHODS)}")
    return METHODS[name]
