"""The answers of the tests' W&B server to each GraphQL operation of its clients."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tests.support.wandb_records import FakeArtifact, FakeReport, FakeRun, FakeSweep

if TYPE_CHECKING:
    from tests.support.wandb_server import WandbServer

ENTITY = "tester"
Variables = Mapping[str, Any]
Answer = dict[str, Any]


def viewer(server: WandbServer, _: Variables) -> Answer:
    """Return the user of the API key."""
    teams = {"edges": [{"node": {"name": ENTITY}}]}
    keys = {"edges": []}
    nothing = dict.fromkeys(("email", "admin", "deletedAt"))
    viewer = {"id": "user-1", "entity": ENTITY, "username": ENTITY, "name": ENTITY, "flags": "{}"}
    return {"viewer": {**viewer, **nothing, "teams": teams, "apiKeys": keys}}


def server_features(server: WandbServer, _: Variables) -> Answer:
    """Return that the server has no new features."""
    return {"serverInfo": {"features": []}}


def organization(server: WandbServer, _: Variables) -> Answer:
    """Return that the user belongs to no organization."""
    return {"entity": {"organization": None}}


def resume_status(server: WandbServer, variables: Variables) -> Answer:
    """Return what a client needs to continue a run; null for a run that has not begun."""
    run = server.runs.get(variables["name"])
    bucket = None if run is None or not run.started else run.resume_status()
    project = server.project(variables["project"])
    return {"model": {**project, "bucket": bucket}}


def upsert_run(server: WandbServer, variables: Variables) -> Answer:
    """Create or update a run."""
    name = variables.get("name") or str(variables["id"]).removeprefix("run-")
    inserted = name not in server.runs
    if inserted:
        server.runs[name] = FakeRun(name)
    run = server.runs[name]
    run.update(variables)
    project = server.project(run.project)
    return {"upsertBucket": {"bucket": {**run.bucket(), "project": project}, "inserted": inserted}}


def create_run_files(server: WandbServer, variables: Variables) -> Answer:
    """Return the URLs to which a run's files are uploaded."""
    run = variables["run"]
    urls = [f"{server.url}/uploads/{run}/{name}" for name in variables["files"]]
    files = [{"name": name, "uploadUrl": url} for name, url in zip(variables["files"], urls)]
    return {"createRunFiles": {"runID": f"run-{run}", "uploadHeaders": [], "files": files}}


def upsert_sweep(server: WandbServer, variables: Variables) -> Answer:
    """Create a sweep, or set its state."""
    name = str(variables.get("id") or f"sweep{len(server.sweeps) + 1:03d}").removeprefix("sweep-")
    if name not in server.sweeps:
        project = variables.get("projectName") or "uncategorized"
        server.sweeps[name] = FakeSweep(name, project, variables["config"])
    sweep = server.sweeps[name]
    sweep.state = variables.get("state") or sweep.state
    told = {"name": name, "id": f"sweep-{name}", "state": sweep.state}
    whole = {**told, "project": server.project(sweep.project)}
    return {"upsertSweep": {"sweep": whole, "configValidationWarnings": []}}


def sweep_with_runs(server: WandbServer, variables: Variables) -> Answer:
    """Return a sweep without its runs; null if there is none."""
    sweep = server.sweeps.get(variables["sweep"])
    told = None if sweep is None else sweep.to_graphql()
    return {"project": {**server.project(variables.get("project")), "sweep": told}}


def create_agent(server: WandbServer, variables: Variables) -> Answer:
    """Create an agent of a sweep; its id is that of the sweep."""
    return {"createAgent": {"agent": {"id": f"agent-{variables['sweep']}"}}}


def heartbeat(server: WandbServer, variables: Variables) -> Answer:
    """Return the next run for an idle agent; `exit` when there is none left."""
    sweep = server.sweeps[str(variables["id"]).removeprefix("agent-")]
    # The ids of the runs that the agent is doing.
    at_work = json.loads(variables["runState"])
    commands = [] if at_work else [sweep.command()]
    told = {"agent": {"id": variables["id"]}, "commands": json.dumps(commands)}
    return {"agentHeartbeat": told}


def get_projects(server: WandbServer, _: Variables) -> Answer:
    """Return all projects on one page."""
    edges = [{"node": server.project(name)} for name in server.projects]
    page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
    return {"models": {"pageInfo": page, "edges": edges}}


def create_project(server: WandbServer, variables: Variables) -> Answer:
    """Create a project."""
    project = server.project(variables["input"]["name"])
    return {"result": {"project": project, "model": project, "inserted": True}}


def project_id(server: WandbServer, variables: Variables) -> Answer:
    """Return a project, with its number."""
    return {"project": server.project(variables["projectName"])}


def upsert_view(server: WandbServer, variables: Variables) -> Answer:
    """Save a report."""
    inserted = not variables.get("id")
    name = f"Vmlldzo{len(server.reports) + 1}" if inserted else variables["id"]
    tokens = [] if inserted else server.reports[name].tokens
    server.reports[name] = FakeReport(name, dict(variables), tokens)
    view = view_of(server, server.reports[name])
    return {"upsertView": {"view": view, "inserted": inserted}}


def upsert_workspace(server: WandbServer, variables: Variables) -> Answer:
    """Save a workspace view."""
    inserted = not variables.get("id")
    name = f"View{len(server.workspaces) + 1}" if inserted else variables["id"]
    if not inserted and name not in server.workspaces:
        raise KeyError(name)
    server.workspaces[name] = dict(variables)
    return {"upsertView": {"view": {"id": name, "name": variables["name"]}, "inserted": inserted}}


def view_of(server: WandbServer, report: FakeReport) -> Answer:
    """Return a report as a GraphQL object."""
    return {**report.to_graphql(), "project": server.project(report.variables["projectName"])}


def specific_report(server: WandbServer, variables: Variables) -> Answer:
    """Return a report by its id."""
    return {"view": view_of(server, server.reports[variables["reportId"]])}


def access_tokens(server: WandbServer, variables: Variables) -> Answer:
    """Return the share links of a report."""
    return {"view": {"accessTokens": server.reports[variables["reportId"]].tokens}}


def create_access_token(server: WandbServer, variables: Variables) -> Answer:
    """Create a view-only share link for a report and its projects."""
    report = server.reports[variables["viewId"]]
    return {"createAccessToken": {"accessToken": report.share(variables["projects"])}}


def create_artifact(server: WandbServer, variables: Variables) -> Answer:
    """Create an artifact that waits for its files."""
    name = f"artifact-{len(server.artifacts) + 1}"
    server.artifacts[name] = FakeArtifact(name, dict(variables["input"]))
    sequence = {"latestArtifact": None}
    told = {"id": name, "state": "PENDING", "artifactSequence": sequence}
    return {"createArtifact": {"artifact": told}}


def artifact_type(server: WandbServer, variables: Variables) -> Answer:
    """Return that there is no artifact of a name, so that it may have any type."""
    return {"project": {"artifact": None}}


def artifact_manifest(server: WandbServer, variables: Variables) -> Answer:
    """Return where an artifact's manifest is uploaded; its id is that of the artifact."""
    name = variables.get("artifactID") or variables["artifactManifestID"]
    url = f"{server.url}/artifacts/{server.artifacts[name].id}/"
    file = {"id": f"file-{name}", "uploadUrl": url, "uploadHeaders": []}
    return {"artifactManifest": {"id": name, "file": file}}


def create_manifest(server: WandbServer, variables: Variables) -> Answer:
    """Create an artifact's manifest."""
    return {"createArtifactManifest": artifact_manifest(server, variables)}


def update_manifest(server: WandbServer, variables: Variables) -> Answer:
    """Return where the whole manifest of an artifact is uploaded."""
    return {"updateArtifactManifest": artifact_manifest(server, variables)}


def create_artifact_files(server: WandbServer, variables: Variables) -> Answer:
    """Return the URLs to which an artifact's files are uploaded."""
    edges = []
    for file in variables["input"]["artifactFiles"]:
        artifact = server.artifacts[file["artifactID"]]
        node = {
            "storagePath": f"{artifact.id}/{file['name']}",
            "uploadUrl": f"{server.url}/artifacts/{artifact.id}/{file['name']}",
            "uploadHeaders": [],
            "uploadMultipartUrls": None,
            "artifact": {"id": artifact.id},
        }
        edges.append({"node": node})
    return {"createArtifactFiles": {"files": {"edges": edges}}}


def commit_artifact(server: WandbServer, variables: Variables) -> Answer:
    """Finish an artifact, all of whose files are there."""
    artifact = server.artifacts[variables["artifactID"]]
    artifact.committed = True
    told = {"id": artifact.id, "digest": artifact.input["digest"]}
    return {"commitArtifact": {"artifact": told}}


ANSWERS: dict[str, Callable[[WandbServer, Variables], Answer]] = {
    "Viewer": viewer,
    "GetViewer": viewer,
    "GetDefaultEntity": viewer,
    "ServerFeaturesQuery": server_features,
    "OrganizationCoreWeaveOrganizationID": organization,
    "RunResumeStatus": resume_status,
    "UpsertBucket": upsert_run,
    "CreateRunFiles": create_run_files,
    "UpsertSweep": upsert_sweep,
    "SweepWithRuns": sweep_with_runs,
    "GetSweepState": sweep_with_runs,
    "CreateAgent": create_agent,
    "Heartbeat": heartbeat,
    "GetProjects": get_projects,
    "CreateProject": create_project,
    "ProjectInternalId": project_id,
    "upsertView": upsert_view,
    "UpsertView2": upsert_workspace,
    "ArtifactType": artifact_type,
    "CreateArtifact": create_artifact,
    "CreateArtifactManifest": create_manifest,
    "UpdateArtifactManifest": update_manifest,
    "CreateArtifactFiles": create_artifact_files,
    "CommitArtifact": commit_artifact,
    "SpecificReport": specific_report,
    "ViewAccessTokens": access_tokens,
    "createAccessToken": create_access_token,
}
