"""The facade that the daemon and the command line use."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from fastprovd.errors import CopiedStore, LocalProtocolError
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import DevKey
from fastprovd.records import AddressRange, Membership, Network, Node, Run, Step
from fastprovd.store import adapters, counters, home, journal, ranges
from fastprovd.store import memberships as membership_table
from fastprovd.store import network as network_table
from fastprovd.store import nodes as node_table
from fastprovd.store import open_links as link_table
from fastprovd.store import runs as run_table
from fastprovd.store.counted import CountedDatabase


class StateStore:
    """All durable facts of one state directory; every method returns after its commit.

    Safe from any thread, so each call may go through `asyncio.to_thread`. Every method raises
    StoreError classes; for the constructor see `Database`, which adds CopiedStore: the directory
    may be a copy, see `home`.
    """

    def __init__(
        self,
        directory: Path,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
        *,
        adopt: bool = False,
    ) -> None:
        """`adopt` a directory that was moved or restored: SEQ goes on far ahead.

        `is_new` says whether the network was made by this process.
        """
        self._database = CountedDatabase(directory)
        try:
            self._come_home(directory, adopt)
        except BaseException:
            self._database.close()
            raise
        self._entropy = entropy
        self.is_new = False
        # (IV Index, first SEQ) reserved by this process: a clean stop can not go below it.
        self._seq_floor: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _come_home(self, directory: Path, adopt: bool) -> None:
        with self._database.transaction(reserves=adopt) as connection:
            if adopt:
                home.adopt(connection, directory, counters.ADOPTION_GAP)
                self._database.take_over(connection)
                counters.skip_seq(connection, counters.ADOPTION_GAP)
            place = home.find_place(self._database.path)
            if (lost := self._database.went_back(connection)) is not None:
                raise CopiedStore(_lost(directory, lost))
            if (problem := home.problem(connection, place, directory)) is not None:
                raise CopiedStore(_copied(directory, problem))
            opened = home.settle(connection, place)
        home.mark(directory, opened)

    def close(self) -> None:
        """Close the database and free the state directory; a second call does nothing."""
        self._database.close()

    # The network

    def network(
        self, *, address: int = 0x0001, net_key_index: int = 0, app_key_index: int = 0
    ) -> Network:
        """Return the network, made at the first call; `address` is our own and then taken.

        Raises:
            StoreError: the network exists with another address or other key indexes.
        """
        with self._database.transaction(reserves=True) as connection:
            is_new = not network_table.exists(connection)
            network = network_table.create_or_load(
                connection,
                self._entropy,
                address=address,
                net_key_index=net_key_index,
                app_key_index=app_key_index,
            )
        if is_new:
            self.is_new = True
            # Keys must not live in the journal alone, which is lost sooner than the database.
            self._database.checkpoint()
        return network

    def set_iv_index(
        self, iv_index: IvIndex, at: datetime | None = None, *, recovers: bool = False
    ) -> None:
        """Move the IV Index forward; SEQ starts at 0 under each IV Index that we transmit with.

        `at` is the time of day, and `recovers` whether it was an IV Index Recovery.
        """
        with self._database.transaction() as connection:
            counters.save_iv_index(connection, iv_index, at, recovers=recovers)

    def iv_index_times(self) -> tuple[datetime | None, datetime | None]:
        """Return the last regular change since the last recovery, and when that was."""
        with self._database.transaction() as connection:
            return counters.load_iv_index_times(connection)

    def reserve_seq_block(self, size: int) -> range:
        """Reserve `size` SEQ numbers under the IV Index that we transmit with.

        Raises:
            SeqSpaceExhausted: fewer than `size` of the 2**24 are left.
        """
        with self._database.transaction(reserves=True) as connection:
            block = counters.reserve_seq(connection, size)
            iv_index = counters.load_iv_index(connection).transmit
        if self._seq_floor is None or self._seq_floor[0] != iv_index:
            self._seq_floor = (iv_index, block.start)
        return block

    def release_seq(self, next_seq: int) -> None:
        """Note the exact next SEQ at a clean stop, so that the next start wastes none.

        Raises:
            LocalProtocolError: `next_seq` is not of the blocks that this store reserved.
        """
        with self._database.transaction() as connection:
            iv_index = counters.load_iv_index(connection).transmit
            floor = self._seq_floor
            if floor is None or floor[0] != iv_index or next_seq < floor[1]:
                raise LocalProtocolError(f"SEQ {next_seq} was not reserved since the start")
            counters.release_seq(connection, next_seq, iv_index)

    def replay_list(self) -> list[tuple[int, int, int]]:
        """Return `(src, iv_index, seq)` of the newest message heard from each source."""
        with self._database.transaction() as connection:
            return counters.load_replay(connection)

    def save_replay_list(self, entries: Iterable[tuple[int, int, int]]) -> None:
        """Keep each `(src, iv_index, seq)` that is newer than the one kept; none goes back."""
        with self._database.transaction() as connection:
            counters.save_replay(connection, entries)

    def note_conflict(self, reason: str) -> None:
        """Keep that somebody else sends with our address: from now on it is refused to open."""
        with self._database.transaction() as connection:
            home.note_conflict(connection, reason)

    # Addresses, nodes, keys

    def reserve_addresses(self, addresses: AddressRange) -> None:
        """Take a range; what of it its run offers to nobody comes back with the end of the run.

        Raises:
            AddressesTaken: some address in it is taken.
        """
        with self._database.transaction(reserves=True) as connection:
            ranges.reserve(connection, addresses)

    def reserved_addresses(self) -> Sequence[AddressRange]:
        """Return every range that is taken, our own address included, lowest first."""
        with self._database.transaction() as connection:
            return ranges.load(connection)

    def save_dev_key(
        self, address: int, device_uuid: bytes, dev_key: DevKey, step: Step | None = None
    ) -> None:
        """Keep the DevKey of a board that we provision, before Provisioning Data leaves.

        With it the step of the journal that says so.
        """
        with self._database.transaction() as connection:
            node_table.save_dev_key(connection, address, device_uuid, dev_key)
            if step is not None:
                journal.append(connection, step)

    def dev_key(self, address: int) -> DevKey | None:
        """Return the newest DevKey of `address`, or `None` when we did not provision it."""
        with self._database.transaction() as connection:
            return node_table.load_dev_key(connection, address)

    def save_nodes(
        self,
        nodes: Sequence[Node],
        steps: Sequence[Step] = (),
        heard: Iterable[tuple[int, int, int]] = (),
        run: Run | None = None,
    ) -> None:
        """Insert or replace nodes by address, and with them a run as `save_run` does, and steps.

        `heard` are entries of the replay list, without which a recorded answer proved a node again.
        """
        releases = run is not None and run.state.is_end
        with self._database.transaction(releases=releases) as connection:
            counters.save_replay(connection, heard)
            node_table.save(connection, nodes)
            for step in steps:
                journal.append(connection, step)
            if run is not None:
                _save_run(connection, run)

    def nodes(self) -> list[Node]:
        """Return every node that is not forgotten, lowest address first."""
        with self._database.transaction() as connection:
            return node_table.load(connection)

    def save_boards(self, run_id: str, uuids: Iterable[bytes]) -> None:
        """Keep which boards a run takes on, by Device UUID."""
        with self._database.transaction() as connection:
            node_table.save_boards(connection, run_id, uuids)

    def drop_boards(self, run_id: str, uuids: Iterable[bytes]) -> None:
        """Forget that a run took these boards on."""
        with self._database.transaction() as connection:
            node_table.drop_boards(connection, run_id, uuids)

    def boards(self) -> dict[bytes, str]:
        """Return the newest run that took each board on, by Device UUID."""
        with self._database.transaction() as connection:
            return node_table.load_boards(connection)

    # Groups

    def save_memberships(self, memberships: Iterable[Membership]) -> None:
        """Insert or replace changes of groups, by group and address."""
        with self._database.transaction() as connection:
            membership_table.save(connection, memberships)

    def memberships(self) -> list[Membership]:
        """Return every change of a group; the group of a run is not among them."""
        with self._database.transaction() as connection:
            return membership_table.load(connection)

    # Runs

    def save_run(self, run: Run) -> None:
        """Insert or replace a run; what it offered to nobody comes back when it has ended."""
        with self._database.transaction(releases=run.state.is_end) as connection:
            _save_run(connection, run)

    def runs(self) -> list[Run]:
        """Return every run, newest first."""
        with self._database.transaction() as connection:
            return run_table.load_all(connection)

    def run(self, run_id: str) -> Run | None:
        """Return one run, or `None` when there is none of that name."""
        with self._database.transaction() as connection:
            return run_table.load(connection, run_id)

    def adapter_links(self, address: str, system: str) -> int | None:
        """Return how many links an adapter was found to bear on this `system`."""
        with self._database.transaction() as connection:
            return adapters.load(connection, address, system)

    def save_adapter_links(self, address: str, system: str, links: int | None) -> None:
        """Keep how many links an adapter bears; `None` forgets it."""
        with self._database.transaction() as connection:
            adapters.save(connection, address, system, links)

    def open_links(self) -> list[str]:
        """Return the BD_ADDRs to which links of ours are open, or were when a process died."""
        with self._database.transaction() as connection:
            return link_table.load(connection)

    def note_open_link(self, device_address: str) -> None:
        """Keep that a link is about to be opened."""
        with self._database.transaction() as connection:
            link_table.note(connection, device_address)

    def drop_open_links(self, device_addresses: Iterable[str]) -> None:
        """Keep that links have ended."""
        with self._database.transaction() as connection:
            link_table.drop(connection, device_addresses)

    def save_step(self, step: Step) -> None:
        """Append to the journal of a run."""
        with self._database.transaction() as connection:
            journal.append(connection, step)

    def steps(self, run_id: str) -> list[Step]:
        """Return the journal of a run; empty for one that was long ago."""
        with self._database.transaction() as connection:
            return journal.load(connection, run_id)

    def interrupt_runs(self, finished: datetime, but: str | None = None) -> list[Run]:
        """End as interrupted every run that an earlier process left unfinished; return them.

        The run `but` is left as it is. The addresses that the others offered to nobody come back.
        """
        with self._database.transaction(releases=True) as connection:
            ended = run_table.interrupt(connection, finished, but)
            for run in ended:
                ranges.release(connection, run.run_id)
            return ended


def _save_run(connection: sqlite3.Connection, run: Run) -> None:
    run_table.save(connection, run)
    if run.state.is_end:
        ranges.release(connection, run.run_id)


def _copied(directory: Path, problem: str) -> str:
    return (
        f"{directory} may be a copy, or older than the network: {problem}; see that no other "
        "gateway uses this network. If the directory was only moved, or is the copy of the last "
        "stop, run 'fastprovd state adopt'. Never adopt an older copy, because addresses that were "
        "handed out since would be handed out again: move it away to begin a new network, and "
        "power-cycle every board"
    )


def _lost(directory: Path, lost: str) -> str:
    return (
        f"{directory} may be a copy, or older than the network: {lost}; see that no other gateway "
        "uses this network, and restore the newest backup if there is one. Otherwise run "
        "'fastprovd state adopt': SEQ and addresses then go on behind all that are known to have "
        "been used, and boards that do not answer have to be power-cycled"
    )
