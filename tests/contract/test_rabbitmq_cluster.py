"""Three RabbitMQs in dockers of their own as one broker cluster: entering, dying, coming back, parting, leaving."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from labelloop.errors import ConflictError, LabelloopError, NotReadyError
from tests.support_dockers import Docker, running_dockers, wait_for

SERVER = "-s rabbit boot"
JOIN = "broker.join(msgspec.convert(invite, InviteReply))"
WORK = "broker.ensure_queues([QueueSpec(name='inference.work', is_replicated=True)])"
SETTINGS = {"tick_s": 4, "start_timeout_s": 180}
NAMES = ["alpha", "beta", "gamma"]


@pytest.fixture(scope="module")
def dockers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Docker]]:
    with running_dockers(tmp_path_factory.mktemp("cluster"), NAMES, broker=SETTINGS) as three:
        yield three


def at_once(*deeds: Callable[[], Any]) -> None:
    """Do all at the same time. Raises the first error."""
    errors: list[BaseException] = []

    def do(deed: Callable[[], Any]) -> None:
        try:
            deed()
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=do, args=(deed,)) for deed in deeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def enter(docker: Docker, host: Docker, *, is_forgotten_first: bool = False) -> None:
    """Let a docker into the cluster of `host`, as its manager would: again and again while the error is retryable."""

    def once() -> bool:
        try:
            docker.do(JOIN, invite=host.do("broker.invite()"))
        except NotReadyError:
            return False
        except ConflictError:
            if not is_forgotten_first:
                raise
            docker.do("broker.stop()")
            forget(host, docker.name)
            return False
        return True

    wait_for(once, 180, f"{docker.name} entering")


def forget(docker: Docker, name: str) -> None:
    """Strike a member off whose end is being noticed."""
    wait_for(lambda: name not in docker.do("broker._server.see()")["running"])
    docker.do("broker.forget(name)", name=name)


def whole(dockers: Sequence[Docker], names: Sequence[str] | None = None) -> bool:
    """Return whether all dockers say that exactly they (or `names`) are the running members of one cluster."""
    views = [docker.do("broker.view()") for docker in dockers]
    wanted = sorted(names or [docker.name for docker in dockers])
    return all(view["cluster"] and view["members"] == wanted and view["running"] == wanted for view in views)


@pytest.fixture
def trio(dockers: list[Docker]) -> list[Docker]:
    """Three members of one cluster, whatever the test before left behind."""
    first, *others = dockers
    at_once(
        *(lambda docker=docker: docker.do("broker.start()") for docker in dockers if docker is first or not docker.pids(SERVER))
    )
    first.do("broker.found('trio')")
    at_once(*(lambda docker=docker: enter(docker, first, is_forgotten_first=True) for docker in others))
    wait_for(lambda: whole(dockers))
    first.do(WORK)
    balance(first)
    first.do("fetch_all(broker.urls().broker, 'inference.work')")
    return dockers


def balance(docker: Docker) -> None:
    """Balance until it works, as upkeep would."""

    def once() -> bool:
        try:
            docker.do("broker.balance()")
        except NotReadyError:
            return False
        return True

    wait_for(once)


def replicas(docker: Docker) -> dict[str, list[str]]:
    queues = docker.do("broker._replicas(broker._server.control)")
    return {queue["name"]: sorted(node.removeprefix("rabbit@") for node in queue["nodes"]) for queue in queues}


def put(docker: Docker, *bodies: str) -> None:
    docker.do("publish(broker.urls().broker, 'inference.work', bodies)", bodies=list(bodies))


def fetched(docker: Docker) -> list[str]:
    """Return all messages of the work queue, as soon as it has a leader to ask."""

    def once() -> list[list[str]]:
        try:
            return [docker.do("fetch_all(broker.urls().broker, 'inference.work')")]
        except AssertionError:
            return []

    return sorted(wait_for(once)[0])


def test_one_founds_two_join_and_each_queue_gets_three_replicas(dockers: list[Docker]) -> None:
    alpha, beta, gamma = dockers
    at_once(*(lambda docker=docker: docker.do("broker.start()") for docker in (alpha, beta)))
    alpha.do("broker.found('trio')")
    alpha.do(WORK)
    put(alpha, "before")
    assert replicas(alpha) == {"inference.work": ["alpha"]}
    # gamma has never been started: joining starts it
    at_once(lambda: enter(beta, alpha), lambda: enter(gamma, alpha))
    wait_for(lambda: whole(dockers))
    enter(beta, alpha)
    assert len({docker.do("broker.erlang_hash('c')") for docker in dockers}) == 1
    balance(gamma)
    assert replicas(beta) == {"inference.work": NAMES}
    assert fetched(gamma) == ["before"]


def test_a_running_member_cannot_be_forgotten_and_founding_elsewhere_is_refused(trio: list[Docker]) -> None:
    with pytest.raises(ConflictError, match="running member"):
        trio[0].do("broker.forget('beta')")
    with pytest.raises(ConflictError, match="reset"):
        trio[0].do("broker.found('another')")
    trio[0].do("broker.forget('nobody')")
    assert whole(trio)


def test_a_member_that_dies_loses_no_message_and_comes_back_by_itself(trio: list[Docker]) -> None:
    alpha, beta, gamma = trio
    put(gamma, "one", "two")
    gamma.kill()
    wait_for(lambda: alpha.do("broker.view()")["running"] == ["alpha", "beta"])
    put(beta, "three")
    gamma.boot()
    gamma.do("broker.start()")
    wait_for(lambda: whole(trio))
    assert fetched(gamma) == ["one", "three", "two"]


def test_a_wiped_member_is_refused_until_it_was_forgotten(trio: list[Docker]) -> None:
    alpha, _, gamma = trio
    put(gamma, "kept")
    gamma.kill()
    gamma.wipe()
    gamma.boot()
    invite = alpha.do("broker.invite()")
    with pytest.raises(ConflictError, match="forget it first"):
        gamma.do(JOIN, invite=invite)
    forget(alpha, "gamma")
    assert replicas(alpha) == {"inference.work": ["alpha", "beta"]}
    enter(gamma, alpha)
    balance(alpha)
    wait_for(lambda: whole(trio))
    assert replicas(gamma) == {"inference.work": NAMES}
    assert fetched(gamma) == ["kept"]


def test_a_queue_that_lost_its_majority_for_good_goes_on_from_the_replica_that_is_left(trio: list[Docker]) -> None:
    alpha, beta, gamma = trio
    alpha.do("broker._execute(broker._server.control, [Move('shrink', 'inference.work', 'rabbit@gamma')])")
    wait_for(lambda: all(docker.do("broker.view()")["short"] == ["inference.work"] for docker in trio))
    put(beta, *(f"m{number}" for number in range(30)))
    beta.kill()
    beta.wipe()
    forget(alpha, "beta")
    balance(alpha)
    assert replicas(gamma) == {"inference.work": ["alpha", "gamma"]}
    assert fetched(gamma) == sorted(f"m{number}" for number in range(30))
    beta.boot()
    enter(beta, alpha)
    wait_for(lambda: whole(trio))
    balance(alpha)
    wait_for(lambda: not any(docker.do("broker.view()")["short"] for docker in trio))
    put(beta, "more")
    alpha.signal(signal.SIGKILL, SERVER)
    assert fetched(gamma) == ["more"]
    wait_for(lambda: started(alpha))
    wait_for(lambda: whole(trio))


def test_a_member_that_was_forgotten_while_it_was_away_joins_anew(trio: list[Docker]) -> None:
    alpha, _, gamma = trio
    gamma.signal(signal.SIGKILL, SERVER)
    forget(alpha, "gamma")
    enter(gamma, alpha)
    wait_for(lambda: whole(trio))


@pytest.mark.parametrize("step", ["emptied", "with the new cookie", "started alone", "application stopped"])
def test_a_half_finished_join_is_finished_by_joining_again(trio: list[Docker], step: str) -> None:
    alpha, _, gamma = trio
    invite = alpha.do("broker.invite()")
    if step == "application stopped":
        gamma.do("broker._server.ask('to stop', 'rabbit:stop(), ok', 60)")
        gamma.do("broker.start()")
        wait_for(lambda: whole(trio))
        return
    gamma.do("broker.leave()")
    wait_for(lambda: whole(trio[:2]))
    if step != "emptied":
        gamma.do("broker._server.empty(cookie)", cookie=invite["cookie"])
    if step == "started alone":
        gamma.do("broker.start()")
        assert gamma.do("broker.invite()")["is_ready"] is False
    gamma.kill_agent()
    enter(gamma, alpha)
    wait_for(lambda: whole(trio))


def test_a_member_with_another_cookie_is_put_right_by_joining(trio: list[Docker]) -> None:
    alpha, _, gamma = trio
    gamma.do("broker.stop()")
    gamma.do("broker._server.cookie.replace()")
    assert gamma.do("broker.erlang_hash('c')") != alpha.do("broker.erlang_hash('c')")
    enter(gamma, alpha)
    wait_for(lambda: whole(trio))


def test_a_minority_pauses_says_so_and_comes_back(trio: list[Docker]) -> None:
    alpha, beta, gamma = trio
    gamma.part_from([alpha, beta])
    try:
        view = wait_for(lambda: (view := gamma.do("broker.view()"))["state"] == "paused" and view)
        assert (view["cluster"], view["members"]) == ("trio", NAMES)
        with pytest.raises(LabelloopError):
            gamma.do("broker.check()")
        with pytest.raises(NotReadyError, match="paused"):
            gamma.do("broker.start()")
        wait_for(lambda: alpha.do("broker.view()")["running"] == ["alpha", "beta"])
        put(alpha, "meanwhile")
    finally:
        gamma.meet([alpha, beta])
    wait_for(lambda: whole(trio))
    assert fetched(gamma) == ["meanwhile"]


def test_when_all_are_parted_all_pause_and_all_come_back(trio: list[Docker]) -> None:
    alpha, beta, gamma = trio
    put(alpha, "kept")
    alpha.part_from([beta, gamma])
    beta.part_from([gamma])
    try:
        wait_for(lambda: all(docker.do("broker.view()")["state"] == "paused" for docker in trio))
    finally:
        alpha.meet([beta, gamma])
        beta.meet([gamma])
    wait_for(lambda: whole(trio))
    assert fetched(beta) == ["kept"]


def is_dropped(docker: Docker) -> bool:
    view = docker.do("broker.view()")
    return view["state"] == "running" and view["running"] == [docker.name]


def started(docker: Docker) -> bool:
    try:
        docker.do("broker.start()")
    except NotReadyError:
        return False
    return True


def test_a_member_that_was_frozen_for_a_while_is_a_member_again(trio: list[Docker]) -> None:
    alpha, _, gamma = trio
    gamma.signal(signal.SIGSTOP, SERVER)
    try:
        wait_for(lambda: "gamma" not in alpha.do("broker.view()")["running"])
        put(alpha, "meanwhile")
    finally:
        gamma.signal(signal.SIGCONT, SERVER)
    wait_for(lambda: whole(trio) or is_dropped(gamma))
    if is_dropped(gamma):  # it came back before it looked, so it never paused: its manager then starts it anew
        gamma.do("broker.stop()")
        wait_for(lambda: started(gamma))
    wait_for(lambda: whole(trio))
    assert fetched(gamma) == ["meanwhile"]


def test_members_leave_one_by_one_and_the_last_one_has_all_messages(trio: list[Docker]) -> None:
    alpha, beta, gamma = trio
    put(alpha, "kept")
    alpha.do("broker.leave()")
    wait_for(lambda: whole([beta, gamma]))
    beta.do("broker.leave()")
    wait_for(lambda: whole([gamma]))
    assert replicas(gamma) == {"inference.work": ["gamma"]}
    assert fetched(gamma) == ["kept"]
    assert not alpha.pids(SERVER) and not beta.pids(SERVER)
    gamma.do("broker.leave()")


def test_an_invitation_to_nobody_who_answers_changes_nothing(dockers: list[Docker]) -> None:
    alpha, beta, _ = dockers
    alpha.do("broker.start()")
    before = alpha.do("broker.erlang_hash('c')")
    invite = {"is_ready": True, "cluster": "gone", "cookie": "0" * 64, "members": ["beta"]}
    beta.do("broker.stop()")
    with pytest.raises(NotReadyError, match="beta"):
        alpha.do(JOIN, invite=invite)
    assert alpha.do("broker.erlang_hash('c')") == before
    assert alpha.pids(SERVER)
