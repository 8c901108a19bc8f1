"""The typed clients against the method tables, and the cluster client against real servers that come, go and change places."""

from __future__ import annotations

import threading
import typing
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from labelloop import clients
from labelloop import messages as m
from labelloop.clients import Cluster, TypedClient
from labelloop.errors import DeadlineError, NotReadyError, UnreachableError
from labelloop.methods import SERVICES
from labelloop.wire import Peer, Server
from tests.contract.wire_world import KEY, SETTINGS, World, address_of, open_world

CLIENTS = {kind.service: kind for kind in TypedClient.__subclasses__()}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_typed_client_has_one_method_for_each_row_with_its_types(service: str) -> None:
    kind = CLIENTS[service]
    names = {name for name, value in vars(kind).items() if callable(value) and not name.startswith("_")}
    assert names == set(SERVICES[service])
    for name, row in SERVICES[service].items():
        hints = typing.get_type_hints(getattr(kind, name))
        assert (hints["request"], hints["return"]) == (row.request, row.reply), name


class Plant:
    """A registry whose topology a test writes, and role servers that answer with their own number."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.topology = m.Topology(epoch=1, train_rpc="", inference_rpc=())
        self.asked = 0
        self.registry = world.server({"topology": self._topology}, "registry")
        self.cluster = Cluster(address_of(self.registry), world.identity("c1", "client"), SETTINGS)
        world.stack.callback(self.cluster.close)

    def _topology(self, request: m.Empty, peer: Peer) -> m.Topology:
        self.asked += 1
        return self.topology

    def put(self, train: Server | None = None, inference: tuple[Server, ...] = (), warnings: tuple[str, ...] = ()) -> None:
        self.topology = m.Topology(
            epoch=self.topology.epoch + 1,
            train_rpc=address_of(train) if train else "",
            inference_rpc=tuple(address_of(server) for server in inference),
            warnings=warnings,
        )

    def inference_node(self, number: int) -> Server:
        def job(request: m.JobKey, peer: Peer) -> m.JobReply:
            return m.JobReply(task="t", job_id="j", version=str(number), chunks=0, done=0, state="done")

        return self.world.server({"job": job}, "inference")

    def train_node(self, number: int) -> Server:
        def models(request: m.TaskRequest, peer: Peer) -> m.ModelsReply:
            return m.ModelsReply(task="t", pointer=number)

        def train(request: m.TrainRequest, peer: Peer) -> m.TrainReply:
            return m.TrainReply(run=number, reason="")

        return self.world.server({"models": models, "train": train}, "train")

    def ask_inference(self) -> str:
        return self.cluster.inference().job(KEY).version

    def age(self) -> None:
        """Make the known topology old enough to be asked for again."""
        self.cluster._asked_s = float("-inf")


@pytest.fixture
def plant(world: World) -> Plant:
    return Plant(world)


def test_calls_go_to_all_inference_nodes_in_turn_and_the_topology_is_not_asked_for_each(plant: Plant) -> None:
    plant.put(inference=(plant.inference_node(1), plant.inference_node(2)))
    assert {plant.ask_inference() for _ in range(6)} == {"1", "2"}
    assert plant.asked <= 2


def test_an_inference_node_that_died_costs_no_call(plant: Plant) -> None:
    first, second = plant.inference_node(1), plant.inference_node(2)
    plant.put(inference=(first, second))
    assert {plant.ask_inference() for _ in range(4)} == {"1", "2"}
    first.close()
    assert {plant.ask_inference() for _ in range(10)} == {"2"}


def test_a_node_that_came_back_is_used_again_once_no_other_answers(plant: Plant) -> None:
    only = plant.inference_node(1)
    plant.put(inference=(only,))
    plant.cluster.topology()
    plant.cluster.shun(address_of(only))
    assert plant.ask_inference() == "1"


def test_calls_to_the_train_master_follow_it_to_another_node(plant: Plant) -> None:
    first, second = plant.train_node(1), plant.train_node(2)
    plant.put(train=first)
    assert plant.cluster.train().models(m.TaskRequest(task="t")).pointer == 1
    plant.put(train=second)
    first.close()
    assert plant.cluster.train().models(m.TaskRequest(task="t")).pointer == 2


def test_a_call_that_must_not_repeat_goes_to_one_master_only_and_the_next_one_to_the_new(plant: Plant) -> None:
    first, second = plant.train_node(1), plant.train_node(2)
    plant.put(train=first)
    plant.cluster.topology()
    plant.put(train=second)
    first.close()
    with pytest.raises(UnreachableError):
        plant.cluster.train().train(m.TrainRequest(task="t"))
    assert plant.cluster.train().train(m.TrainRequest(task="t")).run == 2


def test_a_role_without_a_node_is_not_ready_and_says_why(plant: Plant) -> None:
    plant.put(warnings=("no good train machine: 10.0.0.3 does not answer",))
    with pytest.raises(NotReadyError, match=r"10\.0\.0\.3"):
        plant.cluster.train().models(m.TaskRequest(task="t"))
    with pytest.raises(NotReadyError, match="no inference node"):
        plant.ask_inference()


def test_with_the_registry_down_calls_go_on_by_the_last_topology(plant: Plant) -> None:
    plant.put(train=plant.train_node(1), inference=(plant.inference_node(1),))
    plant.ask_inference()
    plant.registry.close()
    plant.age()
    assert plant.ask_inference() == "1"
    assert plant.cluster.train().models(m.TaskRequest(task="t")).pointer == 1


def test_a_registry_never_seen_is_unreachable(world: World) -> None:
    plant = Plant(world)
    plant.registry.close()
    with pytest.raises(UnreachableError, match="registry"):
        plant.ask_inference()


def test_all_nodes_dead_is_unreachable_after_the_repeats_and_a_hung_one_ends_at_the_deadline(plant: Plant) -> None:
    node = plant.inference_node(1)
    plant.put(inference=(node,))
    plant.cluster.topology()
    address = address_of(node)
    node.close()
    with pytest.raises(UnreachableError, match=address):
        plant.ask_inference()
    go_on = threading.Event()

    def job(request: m.JobKey, peer: Peer) -> m.JobReply:
        go_on.wait(30)
        raise NotReadyError("too late")

    plant.put(inference=(plant.world.server({"job": job}),))
    with pytest.raises(DeadlineError):
        plant.cluster.inference().job(KEY, deadline_s=0.3)
    go_on.set()


def test_a_node_that_left_the_topology_keeps_no_connection_of_ours(plant: Plant) -> None:
    first, second = plant.inference_node(1), plant.inference_node(2)
    plant.put(inference=(first, second))
    assert {plant.ask_inference() for _ in range(4)} == {"1", "2"}
    plant.put(inference=(second,))
    plant.age()
    assert {plant.ask_inference() for _ in range(4)} == {"2"}
    assert [address for address, _ in plant.cluster._clients] == [address_of(second)]


def test_many_threads_may_use_one_cluster_while_nodes_come_and_go(plant: Plant) -> None:
    nodes = [plant.inference_node(n) for n in range(3)]
    plant.put(inference=tuple(nodes))
    answers: list[str] = []

    def work() -> None:
        answers.extend(plant.ask_inference() for _ in range(30))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    nodes[0].close()
    plant.put(inference=tuple(nodes[1:]))
    for thread in threads:
        thread.join()
    assert len(answers) == 180


def test_typed_clients_close_with_their_block(world: World) -> None:
    server = Plant(world).inference_node(5)
    settings = msgspec.structs.replace(SETTINGS, retries=0)
    with clients.InferenceClient(address_of(server), world.identity("c1", "client"), settings) as client:
        assert client.job(KEY).version == "5"
    with pytest.raises(UnreachableError, match="closed"):
        client.job(KEY)
