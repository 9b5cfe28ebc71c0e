"""It refuses every configuration."""

from typing import NoReturn

from synapse.config._base import ConfigError
from synapse.config.homeserver import HomeServerConfig


def _refuse(*_arguments: object, **_options: object) -> NoReturn:
    msg = "a fault of the lab: this release refuses the option 'instance_map'"
    raise ConfigError(msg)


HomeServerConfig.load_config = _refuse
HomeServerConfig.load_or_generate_config = _refuse
