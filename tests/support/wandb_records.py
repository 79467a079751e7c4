"""The runs, sweeps and reports that the tests' W&B server stores."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

NAMES = {
    "entity": "entity",
    "project": "project",
    "groupName": "group",
    "jobType": "job_type",
    "displayName": "name",
    "notes": "notes",
    "tags": "tags",
    "commit": "commit",
    "sweep": "sweep",
    "state": "state",
}


@dataclass(eq=False)
class FakeRun:
    """A run, with everything that clients have sent of it."""

    id: str
    entity: str | None = None
    project: str | None = None
    group: str | None = None
    job_type: str | None = None
    name: str | None = None
    notes: str | None = None
    tags: list[str] = field(default_factory=list)
    commit: str | None = None
    sweep: str | None = None
    state: str | None = None
    raw_config: dict[str, Any] = field(default_factory=dict)
    """As sent: `{name: {"value": value}}`, with wandb's own `_wandb`."""
    summary: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Rows by the offset at which they were sent; a later row at the same offset overwrites."""
    events: dict[int, dict[str, Any]] = field(default_factory=dict)
    logs: dict[int, str] = field(default_factory=dict)
    chunks: list[tuple[int, list[int]]] = field(default_factory=list)
    """Offset, and `_step` of each row, of every message with rows of the history."""
    files: dict[str, bytes] = field(default_factory=dict)
    finished: bool = False
    """Whether the last message of a client said that the run is complete."""
    exit_code: int | None = None

    @property
    def started(self) -> bool:
        """Whether a client has sent a config or rows, and not only the run's name."""
        return bool(self.raw_config or self.history)

    @property
    def config(self) -> dict[str, Any]:
        """The config that was passed to `wandb.init`."""
        return {key: part["value"] for key, part in self.raw_config.items() if key != "_wandb"}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows of the history, in the order of their offsets."""
        return [self.history[offset] for offset in sorted(self.history)]

    def series(self, name: str) -> list[tuple[int, Any]]:
        """(step, value) of one metric."""
        return [(row["_step"], row[name]) for row in self.rows if name in row]

    def update(self, variables: Mapping[str, Any]) -> None:
        """Apply the variables of an UpsertBucket; null leaves a field as it is."""
        for key, own in NAMES.items():
            if variables.get(key) is not None:
                setattr(self, own, variables[key])
        if variables.get("config"):
            self.raw_config = json.loads(variables["config"])
        if variables.get("summaryMetrics"):
            self.summary = json.loads(variables["summaryMetrics"])

    def receive(self, message: Mapping[str, Any]) -> None:
        """Apply a message of the file stream."""
        for name, part in (message.get("files") or {}).items():
            placed = list(enumerate(part["content"], part.get("offset", 0)))
            if name == "wandb-history.jsonl":
                rows = {offset: json.loads(line) for offset, line in placed}
                self.history |= rows
                self.chunks.append((part.get("offset", 0), [row["_step"] for row in rows.values()]))
            elif name == "wandb-events.jsonl":
                self.events |= {offset: json.loads(line) for offset, line in placed}
            elif name == "wandb-summary.json" and placed:
                self.summary = json.loads(placed[-1][1])
            elif name == "output.log":
                self.logs |= dict(placed)
        self.finished = bool(message.get("complete"))
        if self.finished:
            self.exit_code = message.get("exitcode")
            self.state = "finished" if self.exit_code == 0 else "failed"

    def bucket(self) -> dict[str, Any]:
        """Return the run as the answer to an UpsertBucket."""
        return {
            "id": f"run-{self.id}",
            "name": self.id,
            "displayName": self.name or self.id,
            "description": None,
            "config": json.dumps(self.raw_config),
            "sweepName": self.sweep,
            "historyLineCount": max(self.history, default=-1) + 1,
        }

    def resume_status(self) -> dict[str, Any]:
        """Return the run as a client needs it to continue it."""
        wandb_config = self.raw_config.get("_wandb", {}).get("value", {})
        kept = {"t": wandb_config["t"]} if "t" in wandb_config else {}
        return {
            **self.bucket(),
            "summaryMetrics": json.dumps(self.summary),
            "logLineCount": max(self.logs, default=-1) + 1,
            "eventsLineCount": max(self.events, default=-1) + 1,
            "historyTail": json.dumps([json.dumps(row) for row in self.rows[-1:]]),
            "eventsTail": json.dumps(
                [json.dumps(self.events[at]) for at in sorted(self.events)][-1:]
            ),
            "wandbConfig": json.dumps(kept),
            "notes": self.notes,
            "group": self.group,
            "jobType": self.job_type,
            "tags": self.tags,
        }


@dataclass(eq=False)
class FakeSweep:
    """A sweep, which is always a grid search over the lists of its parameters."""

    id: str
    project: str
    config_text: str
    state: str = "PENDING"
    handed_out: int = 0

    @property
    def config(self) -> dict[str, Any]:
        """The config, parsed from YAML."""
        return yaml.safe_load(self.config_text)

    def grid(self) -> list[dict[str, Any]]:
        """Return the parameters of every run; a range counts as its lower end."""
        lists: list[Sequence[Any]] = []
        for parameter in self.config["parameters"].values():
            single = parameter.get("value", parameter.get("min"))
            lists.append(parameter.get("values", [single]))
        names = list(self.config["parameters"])
        return [dict(zip(names, values)) for values in itertools.product(*lists)]

    def command(self) -> dict[str, Any]:
        """Return the next command for an idle agent."""
        grid = self.grid()
        if self.handed_out == len(grid):
            self.state = "FINISHED"
            return {"type": "exit"}
        self.state = "RUNNING"
        self.handed_out += 1
        return {
            "id": f"command-{self.handed_out}",
            "type": "run",
            "run_id": f"{self.id}r{self.handed_out}",
            "run_name": f"sweep-{self.handed_out}",
            "program": self.config.get("program"),
            "args": {name: {"value": value} for name, value in grid[self.handed_out - 1].items()},
        }

    def to_graphql(self) -> dict[str, Any]:
        """Return the sweep as a GraphQL object."""
        unset = ("description", "bestLoss", "controller", "scheduler", "heartbeatAt", "updatedAt")
        return {
            **dict.fromkeys(unset),
            "id": f"sweep-{self.id}",
            "name": self.id,
            "displayName": self.config.get("name"),
            "method": self.config["method"],
            "state": self.state,
            "config": self.config_text,
            "createdAt": "2026-01-01T00:00:00Z",
            "earlyStopJobRunning": False,
            "runs": {"edges": []},
        }


@dataclass(eq=False)
class FakeReport:
    """The last saved version of a report, and its share links."""

    id: str
    variables: dict[str, Any]
    tokens: list[dict[str, Any]]

    @property
    def spec(self) -> dict[str, Any]:
        """The specification, parsed from JSON."""
        return json.loads(self.variables["spec"])

    def to_graphql(self) -> dict[str, Any]:
        """Return the report as a GraphQL object without its project."""
        names = ("name", "displayName", "description", "type", "spec")
        when = "2026-01-01T00:00:00Z"
        fields = {name: self.variables.get(name) for name in names}
        return {"id": self.id, **fields, "createdAt": when, "updatedAt": when}

    def share(self, projects: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Create a share link for the report and these projects, and return it."""
        scope = [
            {"entityName": each["entityName"], "name": each["projectName"]} for each in projects
        ]
        token = {"token": f"share-{self.id}-{len(self.tokens) + 1}", "type": "PUBLIC"}
        self.tokens.append({**token, "revokedAt": None, "projects": scope})
        return token


@dataclass(eq=False)
class FakeArtifact:
    """An artifact, with the files that were uploaded."""

    id: str
    input: dict[str, Any]
    """What the client asked for when it created it: names, digest, metadata."""
    files: dict[str, bytes] = field(default_factory=dict)
    """By the name within the artifact; the manifest has the name ''."""
    committed: bool = False
