"""Membership with real managers and real RabbitMQ: formed, parted, wiped, renamed, killed in the middle, without power.

One cluster of dockers b, c and d (and a, below them all) goes through all of it in this order, its queued messages with it. There
is no registry, so whatever comes back without an order comes back with the registry down.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster.hostsfile import read_block
from cluster.lab.lab import running_lab
from labelloop.errors import LabelloopError
from labelloop.messages import InitialReply
from tests.cluster.member_net import SETTINGS, STATE, Net, until

pytestmark = pytest.mark.slow

MESSAGES = ["m1", "m2", "m3"]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """Three dockers with managers that nobody has ordered yet."""
    folder = tmp_path_factory.mktemp("net")
    with running_lab(3, folder / "lab", names=("b", "c", "d"), is_shell_only=True, settings=SETTINGS) as lab:
        made = Net(lab, folder)
        try:
            made.start("b", "c", "d")
            yield made
        finally:
            made.close()


def test_nodes_that_saw_different_good_lists_end_in_the_larger_cluster_with_its_messages(net: Net) -> None:
    net.lab.partition(["b"], ["c", "d"])
    replies = net.order("b", "c", "d")
    good = {docker: [machine.hostname for machine in _reply(reply).good_machines_info] for docker, reply in replies.items()}
    assert good == {"b": ["b"], "c": ["c", "d"], "d": ["c", "d"]}
    assert net.status("b").broker.cluster != net.status("c").broker.cluster
    net.queued("c", *MESSAGES)
    net.lab.heal()
    with net.unharmed("c", "d"):
        net.form("b", "c", "d")
    assert net.queued("b") == MESSAGES


def _reply(reply: InitialReply | LabelloopError) -> InitialReply:
    assert isinstance(reply, InitialReply), str(reply)
    return reply


def test_three_brokers_are_one_cluster_and_every_hosts_file_names_them(net: Net) -> None:
    clusters = {net.status(docker).broker.cluster for docker in "bcd"}
    assert len(clusters) == 1 and "" not in clusters
    for docker in "bcd":
        block = read_block(net.lab.disk(docker) / "etc" / "hosts")
        assert sorted(name for _, name in block) == ["b", "c", "d"]
    assert [net.status(docker).is_master for docker in "bcd"] == [True, False, False]


def test_the_same_order_again_restarts_nothing(net: Net) -> None:
    before = {docker: net.pids(docker) for docker in "bcd"}
    net.form("b", "c", "d")
    assert {docker: net.pids(docker) for docker in "bcd"} == before


def test_a_wiped_master_comes_back_into_the_cluster_and_no_message_is_lost(net: Net) -> None:
    with net.unharmed("c", "d"):
        net.reboot("b", is_wiped=True)
        net.form("b", "c", "d")
    assert net.queued("b") == MESSAGES


def test_a_lower_ip_that_is_added_joins_the_living_cluster_with_its_queued_messages(net: Net) -> None:
    net.cut_power("d")
    net.lab.add("a", 3)
    net.start("a")
    with net.unharmed("b", "c"):
        net.form("a", "b", "c")
        assert net.status("a").is_master
        assert net.queued("a") == MESSAGES


def test_a_member_that_was_forgotten_while_it_was_away_joins_anew(net: Net) -> None:
    net.cut_power("a")
    with net.unharmed("b", "c"):
        net.reboot("d")
        net.form("b", "c", "d")
    assert net.queued("d") == MESSAGES


def test_a_changed_cookie_is_replaced_by_the_clusters(net: Net) -> None:
    net.kill_manager("c")
    net.kill_broker("c")
    cookie = net.lab.disk("c") / STATE.lstrip("/") / "broker" / "cookie"
    cookie.unlink()
    cookie.write_text("0" * 64)
    net.start("c")
    with net.unharmed("b", "d"):
        net.form("b", "c", "d")
    assert net.queued("c") == MESSAGES


def test_a_renamed_host_joins_under_its_new_name_and_the_old_one_is_forgotten(net: Net) -> None:
    net.kill_manager("d")
    net.names["d"] = "delta"
    net.start("d")
    until(lambda: "renamed or moved" in net.status("d").last_reason, "delta says that it was d")
    with net.unharmed("b", "c"):
        net.form("b", "c", "d")
    assert net.seen("b")[0] == ("b", "c", "delta")
    assert net.queued("d") == MESSAGES


@pytest.mark.parametrize("after_s", [0.3, 2.0])
def test_a_manager_killed_in_the_middle_of_a_join_ends_in_the_right_state_by_ordering_again(net: Net, after_s: float) -> None:
    with net.unharmed("b", "c"):
        net.reboot("d", is_wiped=True)
        with ThreadPoolExecutor(1) as pool:
            order = pool.submit(net.order, "b", "c", "d")
            time.sleep(after_s)  # a point of the join, not a wait for something
            net.kill_manager("d")
            order.result()
        net.start("d")
        net.form("b", "c", "d")
    assert net.queued("d") == MESSAGES


def test_a_member_that_was_frozen_until_the_others_dropped_it_is_a_member_again_by_itself(net: Net) -> None:
    with net.unharmed("b", "c"):
        net.lab.freeze("d")
        until(lambda: net.seen("b")[1] == ("b", "c"), "the others go on without d")
        net.lab.thaw("d")
        net.await_whole("b", "c", "d")
    assert net.queued("d") == MESSAGES


def test_after_a_power_cut_of_all_they_come_back_by_themselves_even_with_their_hosts_files_lost(net: Net) -> None:
    net.cut_power("b", "c", "d")
    for docker in "bcd":
        (net.lab.disk(docker) / "etc" / "hosts").write_text("127.0.0.1\tlocalhost\n")
    net.reboot("b", "c", "d")
    net.await_whole("b", "c", "d")
    for docker in "bcd":
        until(lambda docker=docker: net.status(docker).processes, f"roles of {docker}")  # type: ignore[misc]
        assert net.status(docker).epoch == net.epoch
        assert sorted(name for _, name in read_block(net.lab.disk(docker) / "etc" / "hosts")) == ["b", "c", "delta"]
    assert net.queued("c") == MESSAGES


def test_of_two_members_one_that_comes_back_behind_the_others_epoch_ends_its_pause(net: Net) -> None:
    net.cut_power("d")
    net.form("b", "c")
    old = net.epoch
    net.cut_power("c")
    until(lambda: net.status("b").broker.state == "paused", "b is a minority")
    with ThreadPoolExecutor(1) as pool, net.unharmed("b"):
        order = pool.submit(net.order, "b", "c", to=("b",))
        until(lambda: net.status("b").epoch == old + 1, "b has taken the order that c does not hear")
        net.reboot("c")
        net.await_whole("b", "c")
        assert isinstance(order.result()["b"], InitialReply)
    assert (net.status("c").epoch, net.status("b").epoch) == (old, old + 1)
    assert "waiting for the registry's order" in net.status("c").last_reason
    assert net.queued("b") == MESSAGES
    with net.unharmed("b", "c"):
        net.form("b", "c")


def test_a_master_whose_peers_are_gone_for_good_begins_anew_when_it_is_named_and_who_returns_joins_it(net: Net) -> None:
    net.cut_power("c")
    epoch = net.epoch + 1
    until(lambda: net.status("b").broker.state == "paused", "b is a minority")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(net.order, "b", "c", to=("b",))  # waits for c until the next order overtakes it
        until(lambda: net.status("b").epoch == epoch, "b has taken the order")
        assert net.status("b").broker.state != "running"
        _reply(net.order("b", "c", to=("b",), survivors=("b",))["b"])
        assert isinstance(waiting.result()["b"], LabelloopError)
    net.await_whole("b")
    net.queued("b", "new")
    with net.unharmed("b"):
        net.reboot("c", "d")
        net.form("b", "c", "d")
    assert net.queued("d") == ["new"]
