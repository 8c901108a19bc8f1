"""One RabbitMQ in a docker of its own: its life, who may reach it, and that its secrets stay where they belong."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from labelloop.errors import ConflictError, InvalidInputError, LabelloopError, NotReadyError, UnreachableError
from tests.support_dockers import Docker, running_dockers, wait_for

SERVER = "-s rabbit boot"
OPEN = "connect(url, identity).connected"
REPLICATED = "broker.ensure_queues([QueueSpec(name=name, is_replicated=True)])"


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    with running_dockers(tmp_path_factory.mktemp("alone"), ["solo"], broker={"delivery_limit": 3, "start_timeout_s": 180}) as (
        solo,
    ):
        yield solo


@pytest.fixture
def solo(docker: Docker) -> Docker:
    """The docker with a broker that runs."""
    docker.do("broker.start()")
    return docker


def server_pid(docker: Docker) -> int:
    (pid,) = docker.pids(SERVER)
    return pid


def read(path: Path) -> bytes:
    """Return a file's bytes; none of a process that has ended meanwhile."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def listening(docker: Docker) -> set[str]:
    return {line.split()[3] for line in docker.run("ss", "-Hltn").splitlines()}


def test_a_node_that_was_never_started_has_no_urls_and_no_hash(docker: Docker) -> None:
    assert docker.do("broker.erlang_hash('c')") == ""
    with pytest.raises(LabelloopError, match="never started"):
        docker.do("broker.urls()")
    with pytest.raises(UnreachableError):
        docker.do("broker.check()")
    assert docker.do("broker.view()")["state"] == "stopped"


def test_debians_cookie_is_replaced_before_the_first_start(docker: Docker) -> None:
    if not docker.pids(SERVER):
        (docker.lib / ".erlang.cookie").write_text("DEBIANSCOOKIE")
    docker.do("broker.start()")
    cookie = (docker.lib / ".erlang.cookie").read_text()
    assert len(cookie) == 64 and cookie == (docker.state / "broker/cookie").read_text()
    assert (docker.lib / ".erlang.cookie").stat().st_mode & 0o777 == 0o400
    assert (docker.lib / ".erlang.cookie").owner() == "rabbitmq"


def test_it_listens_only_where_it_should(solo: Docker) -> None:
    ip = solo.ip
    loopback = {"127.0.0.1:5672", "127.0.0.1:4369", "[::1]:4369"}
    assert listening(solo) == loopback | {f"{ip}:5671", f"{ip}:25672", f"{ip}:4369"}


def test_it_runs_as_its_own_user_and_outlives_the_manager(solo: Docker) -> None:
    pid = server_pid(solo)
    assert Path(f"/proc/{pid}").owner() == "rabbitmq"
    solo.kill_agent()
    solo.do("broker.start()")
    assert server_pid(solo) == pid, "it must be taken over, not started again"
    (solo.state / "broker/process.json").unlink()
    solo.do("broker.start()")
    assert server_pid(solo) == pid, "it must be found without its pid file too"


def test_a_killed_broker_comes_back_with_its_messages(solo: Docker) -> None:
    solo.do(REPLICATED, name="inference.kept")
    solo.do("publish(broker.urls().broker, 'inference.kept', ['a', 'b'])")
    pid = server_pid(solo)
    solo.signal(signal.SIGKILL, SERVER)
    wait_for(lambda: not solo.pids(SERVER))
    assert wait_for(lambda: solo.do("broker.view()")["state"] == "stopped")
    solo.do("broker.start()")
    assert server_pid(solo) != pid
    assert solo.do("fetch_all(broker.urls().broker, 'inference.kept')") == ["a", "b"]


def test_a_start_that_is_cut_short_goes_on_by_itself(solo: Docker) -> None:
    solo.do("broker.stop()")
    with pytest.raises(NotReadyError, match="not ready"):
        solo.do("broker.start(lambda: True)")
    (pid,) = wait_for(lambda: solo.pids(SERVER))
    wait_for(lambda: solo.do("broker.view()")["state"] == "running")
    solo.do("broker.start()")
    assert server_pid(solo) == pid


def test_guest_and_wrong_passwords_are_refused(solo: Docker) -> None:
    for account in ("guest:guest", "inference:wrong", "train:"):
        with pytest.raises(AssertionError, match=r"AccessRefused|ACCESS_REFUSED"):
            solo.do(OPEN, url=f"amqp://{account}@127.0.0.1:5672//")
    accounts = solo.do("broker._server.ask('who has an account', 'mnesia:dirty_all_keys(rabbit_user)')")
    assert sorted(accounts) == ["inference", "train"]


def test_a_role_fetches_from_its_own_queues_only_and_declares_none(solo: Docker) -> None:
    solo.do(REPLICATED, name="inference.own")
    solo.do("publish(broker.urls('inference').broker, 'inference.own', ['a'])")
    with pytest.raises(AssertionError, match="ACCESS_REFUSED"):
        solo.do("fetch_all(broker.urls('train').broker, 'inference.own')")
    with pytest.raises(AssertionError, match="ACCESS_REFUSED"):
        solo.do("connect(broker.urls('inference').broker).channel().queue_declare('inference.new')")
    assert solo.do("fetch_all(broker.urls('inference').broker, 'inference.own')") == ["a"]


def test_tls_wants_a_certificate_of_the_cluster_and_the_password(solo: Docker) -> None:
    link = solo.do("broker.link()")
    assert link.startswith("amqps://train:") and f"@{solo.ip}:5671" in link
    assert solo.do(OPEN, url=link)
    hung_up = r"certificate required|CERTIFICATE_REQUIRED|Connection reset|[Bb]roken pipe|EOF occurred"
    with pytest.raises(AssertionError, match=hung_up):
        solo.do("connect(url, ['', '', identity[2]]).channel().is_open", url=link)
    with pytest.raises(AssertionError, match=r"AccessRefused|ACCESS_REFUSED"):
        solo.do(OPEN, url=f"amqps://train:wrong@{solo.ip}:5671//")


def test_a_renewed_certificate_is_taken_up(solo: Docker) -> None:
    serial = "ssl_serial(broker.link(), identity)"
    before = solo.do(serial)
    solo.identity.certificate_file.unlink()
    solo.renew()
    solo.do("broker.start()")
    assert solo.do(serial) != before


def test_a_message_that_is_given_back_too_often_is_a_dead_letter(solo: Docker) -> None:
    table = "[QueueSpec(name='inference.dead', is_replicated=True),"
    table += " QueueSpec(name='inference.work', is_replicated=True, dead_letters='inference.dead')]"
    for _ in range(2):
        solo.do(f"broker.ensure_queues({table})")
    solo.do("publish(broker.urls().broker, 'inference.work', ['poison'])")
    # the first delivery and as many more as the limit says
    assert solo.do("refuse(broker.urls().broker, 'inference.work')") in (3, 4)
    wait_for(lambda: solo.do("broker.view()")["queues"].get("inference.dead") == 1)
    assert solo.do("fetch_all(broker.urls().broker, 'inference.dead')") == ["poison"]


def test_a_queue_of_the_other_kind_is_a_conflict(solo: Docker) -> None:
    solo.do("broker.ensure_queues([QueueSpec(name='inference.solo.control', is_replicated=False)])")
    with pytest.raises(ConflictError, match=r"inference\.solo\.control"):
        solo.do(REPLICATED, name="inference.solo.control")


def test_a_frozen_broker_is_unknown_within_seconds_and_nobody_waits_for_it(solo: Docker) -> None:
    pid = server_pid(solo)
    solo.signal(signal.SIGSTOP, SERVER)
    try:
        wait_for(lambda: solo.do("broker.view()")["state"] == "unknown", 30)
        with pytest.raises(UnreachableError):
            solo.do("broker.check()")
        with pytest.raises(NotReadyError):
            solo.do("broker.start(lambda: True)")
        assert server_pid(solo) == pid, "one that answered a moment ago is not ended for it"
    finally:
        solo.signal(signal.SIGCONT, SERVER)
    wait_for(lambda: solo.do("broker.view()")["state"] == "running", 30)


def test_a_broker_that_stays_silent_is_started_again(solo: Docker) -> None:
    pid = server_pid(solo)
    solo.signal(signal.SIGSTOP, SERVER)
    solo.do("setattr(broker._server, '_answered_s', time.monotonic() - 1000)")
    solo.do("broker.start()")
    assert server_pid(solo) != pid


def test_founding_keeps_what_is_there_and_is_harmless_twice(solo: Docker) -> None:
    solo.do(REPLICATED, name="inference.before")
    solo.do("publish(broker.urls().broker, 'inference.before', ['a'])")
    assert solo.do("broker.invite()")["is_ready"] is False
    solo.do("broker.found('one')")
    solo.do("broker.found('one')")
    invite = solo.do("broker.invite()")
    assert (invite["is_ready"], invite["cluster"], invite["members"]) == (True, "one", ["solo"])
    assert invite["cookie"] == (solo.lib / ".erlang.cookie").read_text()
    assert solo.do("fetch_all(broker.urls().broker, 'inference.before')") == ["a"]
    with pytest.raises(InvalidInputError):
        solo.do("broker.found('no good\\n')")


def test_a_cookie_file_that_was_changed_is_put_right(solo: Docker) -> None:
    path, pid = solo.lib / ".erlang.cookie", server_pid(solo)
    cookie = path.read_text()
    path.unlink()
    path.write_text("0" * 64)
    solo.do("broker.start()")
    assert path.read_text() == cookie and server_pid(solo) == pid


def test_a_broker_that_runs_with_another_cookie_is_started_again(solo: Docker) -> None:
    pid = server_pid(solo)
    solo.do("broker._server.cookie.replace()")
    solo.do("broker.start()")
    assert server_pid(solo) != pid
    assert solo.do("connect(broker.urls().broker).connected"), "passwords follow the cookie"


def test_reset_empties_it_and_start_makes_it_anew(solo: Docker) -> None:
    solo.do(REPLICATED, name="inference.gone")
    before = solo.do("broker.erlang_hash('c')")
    solo.do("broker.reset()")
    assert not solo.pids(SERVER)
    assert solo.do("broker.view()")["cluster"] == ""
    solo.do("broker.start()")
    assert solo.do("broker.erlang_hash('c')") != before
    view = wait_for(lambda: (view := solo.do("broker.view()"))["state"] == "running" and view)
    assert (view["cluster"], view["queues"]) == ("", {})


def test_a_renamed_host_starts_anew_and_its_old_name_is_gone(solo: Docker) -> None:
    assert (solo.lib / "mnesia/rabbit@solo").exists()
    solo.do("broker.found('before')")
    (pid,) = solo.pids(SERVER)
    solo.rename("renamed")
    assert solo.pids(SERVER) == [pid] and solo.do("broker.invite()")["is_ready"] is False, "the old name's server is not ours"
    solo.do("broker.start()")
    view = wait_for(lambda: (view := solo.do("broker.view()"))["state"] == "running" and view)
    assert view["members"] == ["renamed"]
    assert not [path.name for path in (solo.lib / "mnesia").iterdir() if not path.name.startswith("rabbit@renamed")]


def test_no_secret_is_in_a_command_line_an_environment_or_a_log(solo: Docker) -> None:
    urls = [solo.do("broker.urls('inference').broker"), solo.do("broker.urls('train').broker")]
    secrets = [(solo.lib / ".erlang.cookie").read_text(), *(url.split(":")[2].partition("@")[0] for url in urls)]
    assert all(len(secret) == 64 for secret in secrets)
    places = [Path(f"/proc/{pid}/{name}") for pid in solo.pids() for name in ("cmdline", "environ")]
    places += [path for folder in (solo.log, solo.state) for path in folder.rglob("*") if path.is_file() and path.name != "cookie"]
    assert any("agent.log" in path.name for path in places) and any("startup" in path.name for path in places)
    found = [str(place) for place in places for secret in secrets if secret.encode() in read(place)]
    assert found == []
    for path in (solo.lib / "labelloop").rglob("*"):
        assert path.is_symlink() or not path.stat().st_mode & 0o077, path


def test_a_broker_started_by_somebody_else_in_its_folder_gives_way(solo: Docker) -> None:
    solo.do("broker.stop()")
    assert not solo.pids(SERVER)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/var/lib/rabbitmq",
        "RABBITMQ_NODENAME": "rabbit@localhost",
        "detached": "1",
    }
    words = [f"{name}={value}" for name, value in environment.items()]
    command = f"cd /var/lib/rabbitmq && exec setpriv --reuid rabbitmq --regid rabbitmq --clear-groups env -i {' '.join(words)}"
    solo.run("sh", "-c", f"({command} /usr/lib/rabbitmq/bin/rabbitmq-server >/dev/null 2>&1 </dev/null &)")
    foreign = wait_for(lambda: solo.pids(SERVER))
    solo.do("broker.start()")
    assert not set(foreign) & set(solo.pids(SERVER))
    assert "127.0.0.1:5672" in listening(solo)


def test_names_are_looked_up_in_the_hosts_file_and_never_in_dns(solo: Docker) -> None:
    solo.run("sh", "-c", "echo '10.99.0.1 in-the-hosts-file' >> /etc/hosts")
    look = "broker._server.ask('for a name', body)"
    address = 'try {ok, Ip} = inet:getaddr("NAME", inet), list_to_binary(inet:ntoa(Ip)) catch error:{badmatch, {error, E}} -> E end'
    solo.do("broker.read_hosts()")
    assert solo.do(look, body=address.replace("NAME", "in-the-hosts-file")) == "10.99.0.1"
    assert solo.do(look, body=address.replace("NAME", "in-no-hosts-file")) == "nxdomain"
    assert solo.do(look, body="inet_db:res_option(lookup)") == ["file"]
