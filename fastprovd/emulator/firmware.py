"""Constants of the `fast_prov_server` demo firmware, each with the section it was taken from.

FP is the protocol reference (fast-provisioning.md), OB what was measured (observed.md); where
they differ the measurement wins. Times in seconds.
"""

from __future__ import annotations

from typing import Final

from fastprovd.mesh.models.composition import CompositionData, Element, Model
from fastprovd.mesh.models.fast_provisioning import (
    COMPANY_ID,
    FAST_PROV_CLIENT,
    FAST_PROV_SERVER,
    LIST_MAX_ADDRESSES,
)
from fastprovd.mesh.segmentation import SegmentationTimers

LOCAL_NAME: Final = "ESP-BLE-MESH"  # FP 2.1

# Boot and advertising: FP 1, 2, 9; OB 1, 6.
BOOT_JITTER_S: Final = 3.0
BEACON_INTERVAL_S: Final = 5.0
FAST_INTERVAL_S: Final = 0.020
SLOW_INTERVAL_S: Final = 0.500
FAST_ADVERTISING_S: Final = 60.0
NODE_IDENTITY_S: Final = 60.0
# One queued PDU: 3 x (20 + 10) ms. The recordings show 87 to 92 ms from one to the next.
SLOT_S: Final = 0.090
# A segment that went to GATT first is repeated on the air once, without retransmissions.
REPEATED_FROM_GATT_SLOT_S: Final = 0.030
# The controller begins this long after it is told to, then adds 0 to 10 ms to each 20 ms.
FIRST_TRANSMISSION_S: Final = (0.002, 0.009)
TRANSMISSION_INTERVAL_S: Final = 0.020
ADVERTISING_DELAY_S: Final = 0.010
ADVERTISING_BUFFERS: Final = 200  # FP, build options: ADV_BUF

# GATT: FP 2.4, 2.6; recordings: 30 ms connection interval, answers 1 to 12 ms after the event.
ATT_MTU_OCTETS: Final = 23
CONNECTION_INTERVAL_S: Final = 0.030
ANSWER_DELAY_S: Final = (0.004, 0.018)
MAX_LINKS: Final = 3
# From the host of the central to the air: too late for an event nearer than this.
WRITE_LATENCY_S: Final = 0.014
PROXY_BEACON_DELAY_S: Final = 0.015
# A proxy takes PDUs from the air one after the other: in the recordings of N = 12 eleven answers
# that were sent within 8 ms reach the Top over 30 ms.
FORWARD_S: Final = 0.002
PROXY_FILTER_CAPACITY: Final = 4

# PB-ADV: FP 1, 9. Recordings: a repetition starts 0.36 s after the end of the last fragment.
PB_ADV_RETRANSMIT_S: Final = 0.360
PB_ADV_TRANSACTION_S: Final = 3.0
PB_ADV_LAST_TRANSACTION_S: Final = 30.0
PB_ADV_PROTOCOL_S: Final = 6.0
PB_ADV_LAST_PROTOCOL_S: Final = 60.0
LINK_CLOSE_TRANSMISSIONS: Final = 4
LINK_CLOSE_INTERVAL_S: Final = 0.100
MAX_PB_ADV_LINKS: Final = 3
UNPROVISIONED_QUEUE: Final = 10

# Mesh node: FP build options, 4.2, 9.
NETWORK_CACHE: Final = 60
REPLAY_LIST: Final = 60
DEFAULT_TTL: Final = 7
MAX_APP_KEYS: Final = 3
MAX_SUBSCRIPTIONS: Final = 3
BIND_DELAY_S: Final = (0.0005, 0.003)  # FP 4.3, the race; OB 5: never lost
ONOFF_REPEAT_S: Final = 6.0
SEGMENTATION: Final = SegmentationTimers(
    retransmit_base_s=0.4,
    retransmit_per_ttl_s=0.05,
    rounds=5,
    group_interval_s=0.05,
    group_rounds=5,
    ack_base_s=0.15,
    ack_per_ttl_s=0.05,
    ack_per_segment_s=0.1,
    ack_min_s=0.4,
    ack_restarts=False,
    incomplete_s=10.0,
    incomplete_per_segment_s=0.1,
    ack_takes_round=True,
)
RECEIVE_CONTEXTS: Final = 10  # FP build options: RX_SEG_MSG; also how many past ones it knows
COMPOSITION: Final = CompositionData(
    cid=COMPANY_ID,
    pid=0,
    vid=0,
    crpl=REPLAY_LIST,
    features=0x0003,
    elements=(
        Element(
            0,
            (
                Model(0x0000),
                Model(0x0001),
                Model(0x1000),
                Model(FAST_PROV_SERVER, COMPANY_ID),
                Model(FAST_PROV_CLIENT, COMPANY_ID),
            ),
        ),
    ),
)

# Vendor server: FP 1, 6.
MAX_NODE_NUM: Final = 6
LIST_CAPACITY: Final = LIST_MAX_ADDRESSES
REPORT_ADDRESSES: Final = 4
CLIENT_TIMEOUT_S: Final = 4.0
PROXY_ENABLE_S: Final = 10.0
PROXY_ENABLE_COUNT_1_S: Final = 3.0
DISABLE_S: Final = 10.0
REPORT_S: Final = 5.0
TASK_HOP_S: Final = 0.001  # from one FreeRTOS task to the next

# A connection event: the central sends first, the board after it.
BOARD_TURN_S: Final = 0.001

# Flaws: OB 5, 11, 17, 18.
NIMBLE_NOTIFICATION_BUFFERS: Final = 18
# Together these give the limits of OB 10 and 11: lists, partial acks, answers of a roll-call.
NOTIFICATIONS_PER_EVENT: Final = 5
# Measured 32 to 34 of a round; the 34 of 96 addresses always came, the 42 of 120 hardly ever.
BLUEDROID_NOTIFICATIONS_PER_ROUND: Final = (34, 35)
BLUEDROID_LUCKY_ROUND: Final = (0.15, 44)  # probability and limit: 120 addresses got through once
STRAY_ADVERTISEMENT: Final = 1 / 25
STRAY_S: Final = 0.050
SWALLOWED_STATUS: Final = 1 / 25
FALSE_PROXY_PROBABILITY: Final = 10 / 14
FALSE_PROXY_S: Final = (0.30, 0.41)
# A board at the end of its Node Identity; with a link 5 of 5, 5 of 8 and 5 of 9 Primaries (OB 18).
SILENCE_WITHOUT_LINK: Final = (24 + 60 + 8) / (27 + 63 + 10)
SILENCE_WITH_LINK: Final = 15 / 22
# Probability that the Primary's, or another provisioner's, AppKey Add fails for want of a timer,
# over the number of boards in reach; fitted to 0, 0.2, 0.5 and 3 boards at N = 3, 7, 12 and 20.
MISSING_APP_KEY: Final = (
    (3, 0.0, 0.0),
    (7, 0.04, 0.02),
    (12, 0.06, 0.025),
    (20, 0.36, 0.065),
)

# Not measured: from the answer to Node Reset until the board is wiped.
NODE_RESET_S: Final = 0.300
