"""One configuration for every role: flags, then variables, then one TOML file, then defaults.

`settings` says what there is and what is right, `sources` where a value comes from, `options` puts both on a
command. Knows no role's workings.
"""

from voicethere.cli.configuration.settings import Configuration
from voicethere.cli.configuration.sources import Configured, InvalidConfiguration, Origin, read

__all__ = ["Configuration", "Configured", "InvalidConfiguration", "Origin", "read"]
