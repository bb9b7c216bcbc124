"""Making the Primary Provisioner: PB-GATT, then AppKey, Composition Data, INFO_SET."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum, auto

import structlog

from fastprovd.campaign.planner import Plan
from fastprovd.campaign.ports import Link
from fastprovd.campaign.proxy_session import ProxySession
from fastprovd.campaign.states import WAITS
from fastprovd.clock import Clock
from fastprovd.errors import (
    ConnectionLost,
    DecodeError,
    ProvisioningError,
    ResponseTimeout,
    StatusError,
)
from fastprovd.mesh.crypto import EcdhKeyPair
from fastprovd.mesh.keys import AppKey, DevKey
from fastprovd.mesh.models.composition import CompositionData
from fastprovd.mesh.models.configuration import (
    AppKeyAdd,
    CompositionDataGet,
    FoundationStatus,
)
from fastprovd.mesh.models.fast_provisioning import InfoSet
from fastprovd.mesh.models.fast_provisioning_info import ENTER_AS_PRIMARY
from fastprovd.mesh.provisioning.pdus import ProvisioningData
from fastprovd.mesh.provisioning.provisioner import (
    RANDOM_OCTETS,
    CapabilitiesReceived,
    Completed,
    DevKeyDerived,
    Provisioner,
)
from fastprovd.mesh.proxy import ProxyPduType

log = structlog.get_logger()

# 40 octets reduced into the curve's order leave no measurable bias.
KEY_PAIR_OCTETS = 40
_CONFIGURATION_ATTEMPTS = 3
# The bind race lasts some milliseconds; a second INFO_SET does no harm.
_INFO_SET_ATTEMPTS = 3


class Start(Enum):
    """How we know that the board has begun to provision others, if we do."""

    STARTED = "INFO_STATUS says so"
    ALREADY_STARTED = "INFO_STATUS says that it had begun before"
    HUNG_UP = "the board hung up after INFO_SET"


class Outcome(Enum):
    """How far a provisioning session came."""

    COMPLETED = auto()
    NOTHING_SENT = auto()
    DATA_SENT = auto()


async def provision(
    link: Link,
    data: ProvisioningData,
    entropy: Callable[[int], bytes],
    clock: Clock,
    persist: Callable[[DevKey], Awaitable[None]],
) -> tuple[Outcome, str]:
    """Run one session over PB-GATT; `persist` commits the DevKey before Data leaves.

    Returns the outcome and, unless it is COMPLETED, the reason. After DATA_SENT the address is
    burnt: the board may have taken it.
    """
    machine = Provisioner(
        EcdhKeyPair.from_random(entropy(KEY_PAIR_OCTETS)),
        entropy(RANDOM_OCTETS),
        clock.monotonic(),
    )
    outcome = Outcome.NOTHING_SENT
    try:
        async with asyncio.timeout(WAITS["provisioning"].seconds):
            while True:
                for pdu in machine.pdus_to_send():
                    await link.send(ProxyPduType.PROVISIONING_PDU, pdu)
                try:
                    async with asyncio.timeout_at(machine.next_deadline()):
                        pdu_type, payload = await link.receive()
                except TimeoutError:
                    machine.handle_deadline(clock.monotonic())
                    continue
                if pdu_type is not ProxyPduType.PROVISIONING_PDU:
                    log.debug("pdu_ignored", type=pdu_type.name, octets=len(payload))
                    continue
                for event in machine.receive(payload, clock.monotonic()):
                    match event:
                        case CapabilitiesReceived(capabilities=capabilities):
                            log.debug(
                                "capabilities_received", elements=capabilities.number_of_elements
                            )
                            if capabilities.number_of_elements != 1:
                                return outcome, (
                                    "the board has "
                                    f"{capabilities.number_of_elements} elements, the fast "
                                    "provisioning firmware has one"
                                )
                        case DevKeyDerived(dev_key=dev_key):
                            await persist(dev_key)
                            machine.send_data(data, clock.monotonic())
                            outcome = Outcome.DATA_SENT
                        case Completed():
                            return Outcome.COMPLETED, ""
    except TimeoutError:
        return outcome, f"provisioning took over {WAITS['provisioning'].seconds} s"
    except (ProvisioningError, ConnectionLost) as error:
        return outcome, str(error)


async def add_app_key(
    session: ProxySession, address: int, dev_key: DevKey, app_key: AppKey
) -> None:
    """Give the node the AppKey; it binds it to its models some milliseconds after its answer.

    Raises:
        StatusError: the board refuses the key.
        ResponseTimeout, ConnectionLost: no answer.
    """
    status = await session.request(
        AppKeyAdd(app_key),
        dst=address,
        key=dev_key,
        ttl=0,
        timeout_s=WAITS["configuration"].seconds,
        attempts=_CONFIGURATION_ATTEMPTS,
    )
    if status.status is not FoundationStatus.SUCCESS:
        raise StatusError(
            f"the board refuses the AppKey with status {status.status.name}; "
            "power-cycle it and start again",
            status.status,
        )


async def read_composition(
    session: ProxySession, address: int, dev_key: DevKey
) -> CompositionData | None:
    """Read the Composition Data, which outlives the bind race; `None` when it is not sound.

    Raises:
        ResponseTimeout, ConnectionLost: no answer.
    """
    answer = await session.request(
        CompositionDataGet(),
        dst=address,
        key=dev_key,
        ttl=0,
        timeout_s=WAITS["configuration"].seconds,
        attempts=_CONFIGURATION_ATTEMPTS,
    )
    try:
        return answer.composition()
    except DecodeError as error:
        log.warning("composition_unreadable", reason=str(error))
        return None


async def start_fast_provisioning(
    session: ProxySession,
    plan: Plan,
    app_key: AppKey,
    group: int,
    match: bytes,
    send_again: Callable[[], object] = lambda: None,
) -> Start:
    """Send INFO_SET until the board has started; return how we know.

    `send_again` is called before it is repeated because nobody answered.

    The board hangs up right after its answer, so a lost link most likely means "started", and a
    board that says it is already at it has.

    Raises:
        StatusError: the board refuses, with its reason.
        ResponseTimeout: it neither starts nor hangs up.
        ConnectionLost: the link was gone before anything was sent.
    """
    session.check()
    message = InfoSet(
        node_addr_cnt=plan.node_addr_cnt,
        unicast_min=plan.share.first,
        unicast_max=plan.share.last,
        group_addr=group,
        match_val=match,
        action=ENTER_AS_PRIMARY,
    )
    for attempt in range(_INFO_SET_ATTEMPTS):
        try:
            status = await session.request(
                message,
                dst=plan.primary,
                key=app_key,
                ttl=0,
                timeout_s=WAITS["info_status"].seconds,
            )
        except ConnectionLost:
            return Start.HUNG_UP
        except ResponseTimeout:
            log.info("info_set_unanswered", attempt=attempt + 1)
            if attempt + 1 < _INFO_SET_ATTEMPTS:
                send_again()
            continue
        if status.succeeded:
            return Start.STARTED
        if status.already_in_progress:
            return Start.ALREADY_STARTED
        if status.busy:
            await asyncio.sleep(0.5)
            continue
        raise StatusError(
            f"the board refuses INFO_SET: {status.reason or 'it does not say why'}", status.mask
        )
    raise ResponseTimeout(
        f"the board did not start in {_INFO_SET_ATTEMPTS} INFO_SET, and the link stayed up; "
        "power-cycle the board and start again"
    )
