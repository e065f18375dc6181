"""Foreign clients talk to the gateway that is behind bad networks elsewhere."""

from tests.integration.chat_proxy.conftest import gateway

__all__ = ["gateway"]
