"""What goes wrong in the middle of a run must not make fastprovd say what is not so."""

from __future__ import annotations

import time

import pytest

from hwbench import oracles
from hwbench.bench import Bench
from hwbench.trial import Trial

BOARDS = 3
BOARDS_LEFT_S = 1.0  # into `provisioning`: some boards are nodes by then, some are not
BROKER_AWAY_S = 5.0
BLUETOOTHD_AWAY_S = 2.0  # systemd restarts it in 0.6 to 2.2 s
# With few boards the Primary is back within half a minute; so long is waited for a dead one.
PRIMARY_RETURN_S = 45.0


@pytest.mark.power
@pytest.mark.nodes(BOARDS)
def test_one_board_loses_power(bench: Bench) -> None:
    """The run ends as partial with a reason; every other board is known and proven."""
    boards = bench.fresh_boards(BOARDS)
    with bench.daemon():
        trial = Trial(bench, boards, "power cut of one")
        trial.reach("provisioning")
        views = bench.views(boards)
        victim = next(board for board in boards if views[board.id].address is None)
        trial.disturb(f"power of {victim.id} cut", lambda: bench.cut(victim))
        run = trial.judge()
        assert run["state"] == oracles.PARTIAL
        assert run["proven"] == BOARDS - 1
        assert len(run["missing"]) == 1, run["missing"]
        trial.call_again()


@pytest.mark.power
@pytest.mark.nodes(BOARDS)
def test_all_boards_lose_power(bench: Bench) -> None:
    """The run ends without claiming a node; the next one, with power, is done."""
    boards = bench.fresh_boards(BOARDS)
    with bench.daemon(proxy_timeout_s=PRIMARY_RETURN_S):
        trial = Trial(bench, boards, "power cut of all")
        trial.reach("provisioning")
        time.sleep(BOARDS_LEFT_S)

        def cut_all() -> None:
            for board in boards:
                bench.cut(board)

        trial.disturb("power of all boards cut", cut_all)
        run = trial.judge()
        assert run["state"] == oracles.PARTIAL
        assert run["proven"] == 0
        for board in boards:
            bench.restore(board)
        before = {node["addr"] for node in trial.nodes()["nodes"]}
        again = Trial(bench, boards, "after the power cut of all")
        run = again.judge()
        assert run["state"] == oracles.DONE, run["reason"]
        assert not before & set(again.nodes()["addresses"]), "an address was used twice"
        again.call_again()


@pytest.mark.destructive
@pytest.mark.nodes(BOARDS)
def test_the_broker_is_killed(bench: Bench) -> None:
    """The run goes on without it, and all is published when it is back."""
    broker = bench.program("broker")
    boards = bench.fresh_boards(BOARDS)
    with bench.daemon():
        trial = Trial(bench, boards, "broker killed")
        trial.reach("provisioning")
        trial.disturb("broker killed", broker.kill)
        time.sleep(BROKER_AWAY_S)
        broker.start()
        run = trial.judge()
        assert run["state"] == oracles.DONE, run["reason"]
        trial.switch_every_node()
        trial.call_again()


@pytest.mark.destructive
@pytest.mark.nodes(BOARDS)
def test_bluetoothd_is_killed(bench: Bench) -> None:
    """The run survives it: links and scans come back, and it is done."""
    bluetoothd = bench.program("bluetoothd")
    boards = bench.fresh_boards(BOARDS)
    with bench.daemon():
        trial = Trial(bench, boards, "bluetoothd killed")
        trial.reach("provisioning")
        trial.disturb("bluetoothd killed", bluetoothd.kill)
        time.sleep(BLUETOOTHD_AWAY_S)
        bluetoothd.start()
        run = trial.judge()
        assert run["state"] == oracles.DONE, run["reason"]
        trial.call_again()


@pytest.mark.power
@pytest.mark.nodes(BOARDS)
def test_the_daemon_is_killed(bench: Bench) -> None:
    """It goes on with that run once it is back; the next one, with fresh boards, is done."""
    boards = bench.fresh_boards(BOARDS)
    with bench.daemon() as daemon:
        trial = Trial(bench, boards, "daemon killed")
        trial.reach("provisioning")
        trial.disturb("daemon killed", daemon.kill)
        bench.start_daemon(daemon)
        run = trial.judge()
        assert run["state"] == oracles.DONE, run["reason"]
        trial.call_again()
        before = {node["addr"] for node in trial.nodes()["nodes"]}
        again = Trial(bench, bench.fresh_boards(BOARDS), "after the daemon was killed")
        run = again.judge()
        assert run["state"] == oracles.DONE, run["reason"]
        assert not before & set(again.nodes()["addresses"]), "an address was used twice"
        again.call_again()
