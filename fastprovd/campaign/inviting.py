"""Whether devices are unprovisioned: each is invited over a link of its own, and let go again.

That is more than an advertisement tells: BlueZ repeats what a node advertised before it was one,
and anybody can advertise the Device UUID of a node. Nothing is offered, so no address is used.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

import structlog

from fastprovd.campaign.ports import Bearer, Link
from fastprovd.campaign.primary import KEY_PAIR_OCTETS
from fastprovd.campaign.states import WAITS
from fastprovd.campaign.tasks import together
from fastprovd.clock import Clock
from fastprovd.errors import BearerError, DecodeError, ProvisioningError
from fastprovd.mesh.crypto import EcdhKeyPair
from fastprovd.mesh.provisioning.provisioner import RANDOM_OCTETS, CapabilitiesReceived, Provisioner
from fastprovd.mesh.proxy import ProxyPduType

log = structlog.get_logger(__name__)


async def who_is_unprovisioned(
    bearer: Bearer, device_addresses: Iterable[str], clock: Clock, entropy: Callable[[int], bytes]
) -> set[str]:
    """Return the device addresses that answer an Invite with Capabilities, as far as time allows.

    Whoever advertises devices that are not there does not hold us up for longer.
    """
    left = deque(sorted(set(device_addresses)))
    found: set[str] = set()

    async def work() -> None:
        while left:
            device_address = left.popleft()
            try:
                async with bearer.provisioning_link(device_address) as link:
                    if await _is_invited(link, clock, entropy):
                        found.add(device_address)
            except (BearerError, DecodeError, ProvisioningError, TimeoutError) as error:
                log.info("invite_unanswered", device_address=device_address, reason=str(error))

    if left:
        try:
            async with asyncio.timeout(WAITS["invites"].seconds):
                await together(work, min(len(left), bearer.links.now))
        except TimeoutError:
            log.warning("devices_left_uninvited", number=len(left), reason=WAITS["invites"].reason)
    return found


async def _is_invited(link: Link, clock: Clock, entropy: Callable[[int], bytes]) -> bool:
    machine = Provisioner(
        EcdhKeyPair.from_random(entropy(KEY_PAIR_OCTETS)), entropy(RANDOM_OCTETS), clock.monotonic()
    )
    for pdu in machine.pdus_to_send():
        await link.send(ProxyPduType.PROVISIONING_PDU, pdu)
    async with asyncio.timeout(WAITS["invite"].seconds):
        while True:
            pdu_type, payload = await link.receive()
            if pdu_type is not ProxyPduType.PROVISIONING_PDU:
                continue
            events = machine.receive(payload, clock.monotonic())
            return any(isinstance(event, CapabilitiesReceived) for event in events)
