"""Every message of every model here, by opcode."""

from __future__ import annotations

from typing import Final

from fastprovd.mesh.access import Message, UnknownMessage, split_opcode
from fastprovd.mesh.models import (
    configuration,
    configuration_states,
    configuration_subscriptions,
    fast_provisioning,
    generic_onoff,
)

_MESSAGES: Final[tuple[type[Message], ...]] = (
    *configuration.MESSAGES,
    *configuration_states.MESSAGES,
    *configuration_subscriptions.MESSAGES,
    *fast_provisioning.MESSAGES,
    *generic_onoff.MESSAGES,
)
_BY_OPCODE: Final[dict[int, type[Message]]] = {message.OPCODE: message for message in _MESSAGES}


def decode_message(payload: bytes) -> Message | UnknownMessage:
    """Return the message of an access payload; its class is known by its opcode.

    Raises:
        DecodeError: no opcode, or parameters that its message does not allow.
    """
    opcode, parameters = split_opcode(payload)
    message = _BY_OPCODE.get(opcode)
    if message is None:
        return UnknownMessage(opcode, parameters)
    return message.decode_parameters(parameters)
