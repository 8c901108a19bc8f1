"""The fixed list of what may be called over RPC: name, request, reply, who may call, whether a retry is harmless.

Owns the four tables. The wire serves nothing that is not here; a test walks the tables with a certificate of each kind.
"""

from __future__ import annotations

from typing import NamedTuple

from labelloop import messages as m

ANY = frozenset({"node", "ops", "client"})
NODE_OPS = frozenset({"node", "ops"})
OPS = frozenset({"ops"})
NODE = frozenset({"node"})
NOBODY_YET = frozenset({"node", "ops", "client", "anonymous"})


class Method(NamedTuple):
    """One callable of a service. `kinds`: certificate kinds that may call; 'anonymous' = also a peer without a certificate."""

    name: str
    request: type[m.Message]
    reply: type[m.Message]
    kinds: frozenset[str]
    is_idempotent: bool


def _table(*methods: Method) -> dict[str, Method]:
    return {method.name: method for method in methods}


REGISTRY = _table(
    Method("admit", m.AdmitRequest, m.AdmitReply, NOBODY_YET, True),
    Method("renew", m.AdmitRequest, m.AdmitReply, ANY, True),
    Method("heartbeat", m.Heartbeat, m.HeartbeatReply, NODE, True),
    Method("nodes", m.Empty, m.NodesReply, ANY, True),
    Method("topology", m.Empty, m.Topology, ANY, True),
    Method("form", m.FormRequest, m.NodesReply, OPS, True),
    Method("assign", m.AssignRequest, m.NodesReply, OPS, True),
    Method("add", m.NodeRequest, m.NodesReply, OPS, True),
    Method("drain", m.NodeRequest, m.NodesReply, OPS, True),
    Method("remove", m.NodeRequest, m.NodesReply, OPS, True),
    Method("revoke", m.NodeRequest, m.Empty, OPS, True),
    Method("actions", m.Empty, m.ActionsReply, frozenset({"ops", "client"}), True),
    Method("open_task", m.OpenTaskRequest, m.OpenTaskReply, frozenset({"ops", "client"}), True),
)
MANAGER = _table(
    Method("initial", m.InitialRequest, m.InitialReply, NODE_OPS, True),
    Method("open_task", m.OpenTaskRequest, m.OpenTaskReply, NODE_OPS, True),
    Method("status", m.Empty, m.NodeStatus, NODE_OPS, True),
    Method("stop_role", m.RoleRequest, m.NodeStatus, NODE_OPS, True),
    Method("logs", m.LogsRequest, m.LogsReply, NODE_OPS, True),
    Method("leave", m.Empty, m.Empty, NODE_OPS, True),
    Method("invite", m.InviteRequest, m.InviteReply, NODE, True),
    Method("forget", m.ForgetRequest, m.Empty, NODE, True),
    Method("link", m.LinkRequest, m.LinkReply, NODE, True),
    Method("probe", m.ProbeRequest, m.ProbeReply, NODE_OPS, True),
)
TRAIN = _table(
    Method("submit", m.SubmitRequest, m.SubmitReply, ANY, True),
    Method("train", m.TrainRequest, m.TrainReply, ANY, False),
    Method("progress", m.ProgressRequest, m.ProgressReply, ANY, True),
    Method("cancel", m.CancelRequest, m.RunView, ANY, True),
    Method("models", m.TaskRequest, m.ModelsReply, ANY, True),
    Method("run_log", m.RunLogRequest, m.RunLogReply, ANY, True),
    Method("promote", m.PromoteRequest, m.PointerReply, ANY, False),
    Method("rollback", m.TaskRequest, m.PointerReply, ANY, False),
)
INFERENCE = _table(
    Method("predict", m.PredictRequest, m.Predictions, ANY, True),
    Method("predict_async", m.JobRequest, m.JobReply, ANY, True),
    Method("job", m.JobKey, m.JobReply, ANY, True),
    Method("results", m.ResultsRequest, m.ResultsReply, ANY, True),
    Method("rank", m.RankRequest, m.RankReply, ANY, True),
    Method("apply_rules", m.RulesRequest, m.RulesReply, ANY, True),
    Method("weigh_votes", m.VotesRequest, m.RulesReply, ANY, True),
)
SERVICES: dict[str, dict[str, Method]] = {"registry": REGISTRY, "manager": MANAGER, "train": TRAIN, "inference": INFERENCE}
