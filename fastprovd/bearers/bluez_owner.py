"""Who owns the name org.bluez, and whether a signal is from there.

The bus delivers signals from anybody to our unique name, whatever our match rules say, and members
and bodies are easily made up. The sender is not: the bus itself writes it.
"""

from __future__ import annotations

from typing import Final

from bleak.backends.bluezdbus.manager import get_global_bluez_manager
from dbus_fast import Message, MessageType
from dbus_fast.aio import MessageBus

NAME: Final = "org.bluez"
BUS: Final = "org.freedesktop.DBus"
_RULE: Final = f"type='signal',sender='{BUS}',member='NameOwnerChanged',arg0='{NAME}'"


class BluezOwner:
    """Follows the owner of org.bluez over one connection to the bus."""

    def __init__(self) -> None:
        self._unique_name: str | None = None  # empty: nobody has it; None: not known yet

    async def follow(self, bus: MessageBus) -> None:
        """Ask who it is, and hear of each change from now on; raises OSError, EOFError.

        `is_said` must be asked about each message of this bus.
        """
        await add_match(bus, _RULE)
        match await ask_bus(bus, "GetNameOwner", NAME):
            case Message(message_type=MessageType.METHOD_RETURN, body=[str(owner)]):
                pass
            case _:
                owner = ""
        if self._unique_name is None:  # else a change was told, which is newer
            self._unique_name = owner

    def is_said(self, message: Message) -> bool:
        """Whether a signal counts: the bus says it of the name, or its owner says it."""
        if message.sender == BUS:
            match message.member, message.body:
                case "NameOwnerChanged", ["org.bluez", _, str(owner)]:
                    self._unique_name = owner
                    return True
            return False
        is_owner = bool(self._unique_name) and message.sender == self._unique_name
        return is_owner and message.member != "NameOwnerChanged"

    @property
    def is_known(self) -> bool:
        """Whether it is known who owns it, or that nobody does."""
        return self._unique_name is not None


class BleakGuard:
    """Keeps from bleak what others than BlueZ signal to it; bleak does not look at the sender.

    It believes everybody that a device is disconnected or an adapter gone.
    """

    def __init__(self) -> None:
        self._guarded: MessageBus | None = None

    async def stand(self) -> None:
        """See that bleak has its bus, and stand before it; raises what bleak does."""
        bus = (await get_global_bluez_manager())._bus
        if bus is None or bus is self._guarded:
            return
        self._guarded = bus
        owner = BluezOwner()

        def is_to_ignore(message: Message) -> bool:
            is_signal = message.message_type is MessageType.SIGNAL
            return is_signal and not owner.is_said(message) and owner.is_known

        # Handlers are called in this order, and what one of them takes the next do not get.
        bus._user_message_handlers.insert(0, is_to_ignore)
        await owner.follow(bus)


async def add_match(bus: MessageBus, rule: str) -> None:
    """Have the bus send us these signals; raises OSError when it refuses."""
    reply = await ask_bus(bus, "AddMatch", rule)
    if reply is None or reply.message_type is MessageType.ERROR:
        raise OSError(f"the bus refuses a match rule ({reply and reply.error_name})")


async def ask_bus(bus: MessageBus, member: str, what: str) -> Message | None:
    """Call a method of the bus itself that takes one string."""
    return await bus.call(
        Message(
            destination=BUS,
            path="/org/freedesktop/DBus",
            interface=BUS,
            member=member,
            signature="s",
            body=[what],
        )
    )
