"""Projects, builds and deployments over the API, on a real store."""

from __future__ import annotations

import hashlib
import io
import uuid
import zipfile
from typing import Any

import pytest

from voicethere.wire.control_plane import DeploymentStatus

GOOD = b"from voicethere.agent import define_agent\ndefine_agent()\n"


async def test_a_project_is_created_listed_shown_and_deleted(api: Any) -> None:
    created = await api.post("/projects", {"name": "Café Étoile", "slug": "cafe"})
    assert set(created) == {
        "id",
        "org_id",
        "name",
        "slug",
        "active_build_id",
        "deployed_build_id",
        "deployed_at",
        "is_deployed",
        "created_at",
    }
    assert created["is_deployed"] is False
    assert await api.get("/projects") == {"projects": [created]}
    assert await api.get(f"/projects/{created['id']}") == created
    wrong = await api.refused("DELETE", f"/projects/{created['id']}", json={"confirm_name": "cafe"})
    assert wrong[:2] == (422, "VALIDATION_FAILED")
    gone = await api.send("DELETE", f"/projects/{created['id']}", json={"confirm_name": "Café Étoile"})
    assert (gone.status_code, gone.content) == (204, b"")
    assert await api.get("/projects") == {"projects": []}


async def test_slugs_are_derived_unique_and_refused_when_taken(api: Any) -> None:
    slugs = [(await api.post("/projects", {"name": name}))["slug"] for name in ("Café É", "café é", "日本")]
    assert slugs == ["cafe-e", "cafe-e-2", "project"]
    status, code, message = await api.refused("POST", "/projects", json={"name": "x", "slug": "cafe-e"})
    assert (status, code) == (409, "CONFLICT")
    assert "'cafe-e'" in message


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": 5}, "name"),
        ({"name": ""}, "name"),
        ({"name": "   "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\x1b[31mred"}, "name"),
        ({"name": "a", "slug": "Not A Slug"}, "slug"),
        ({"name": "a", "slug": "x" * 100}, "slug"),
    ],
)
async def test_bad_project_bodies_name_the_field(api: Any, body: Any, field: str) -> None:
    status, code, message = await api.refused("POST", "/projects", json=body)
    assert (status, code) == (422, "VALIDATION_FAILED")
    assert f"`{field}`" in message


async def test_what_a_key_may_not_see_is_a_404(platform: Any, api: Any) -> None:
    project_id = await api.project()
    stranger = await platform.key(org_id=await _other_org(platform))
    assert (await stranger.refused("GET", f"/projects/{project_id}"))[0] == 404
    assert (await stranger.refused("GET", f"/projects/{project_id}/session-errors"))[0] == 404
    assert (await stranger.refused("POST", "/deployments", json={"project_id": project_id}))[0] == 404
    assert await stranger.get("/projects") == {"projects": []}
    second = await api.project("Second")
    bound = await platform.key(project_id=project_id)
    assert [p["id"] for p in (await bound.get("/projects"))["projects"]] == [project_id]
    assert (await bound.refused("GET", f"/projects/{second}"))[0] == 404
    assert (await bound.refused("POST", "/projects", json={"name": "no"}))[0] == 403
    for junk in ("nope", "..", "%00", str(uuid.uuid4()), str(uuid.uuid4()).upper(), "x" * 3000):
        assert (await api.refused("GET", f"/projects/{junk}"))[:2] == (404, "NOT_FOUND"), junk


async def test_client_keys_and_services_have_no_business_here(platform: Any, api: Any) -> None:
    project_id = await api.project()
    client = await platform.key("client", project_id=project_id)
    for path in (
        "/projects",
        f"/projects/{project_id}",
        f"/projects/{project_id}/session-errors",
        "/api-keys",
    ):
        assert (await client.refused("GET", path))[:2] == (403, "FORBIDDEN")
        assert (await platform.service().refused("GET", path))[:2] == (403, "FORBIDDEN")


async def test_an_upload_is_validated_and_kept(platform: Any, api: Any) -> None:
    project_id = await api.project()
    response = await api.upload(project_id, GOOD, message="first")
    assert response.status_code == 201, response.text
    build = response.json()
    checksum = hashlib.sha256(GOOD).hexdigest()
    assert build["checksum_sha256"] == checksum
    assert (build["size_bytes"], build["validation_status"], build["message"]) == (
        len(GOOD),
        "valid",
        "first",
    )
    assert platform.verifier.seen == [GOOD]
    assert await platform.bundles.get(checksum) == GOOD
    assert (await api.get(f"/projects/{project_id}/builds"))["builds"] == [build]
    assert (await api.get(f"/projects/{project_id}"))["active_build_id"] is None


async def test_a_zip_is_taken_too(api: Any) -> None:
    project_id = await api.project()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("agent.py", GOOD)
    response = await api.upload(project_id, archive.getvalue(), filename="bundle.zip")
    assert response.json()["validation_status"] == "valid", response.text


@pytest.mark.parametrize("content", [b"", b"\x00\x01 no Python", b"PK\x03\x04 no zip at all"])
async def test_a_structurally_bad_bundle_is_refused_and_not_kept(
    platform: Any, api: Any, content: bytes
) -> None:
    project_id = await api.project()
    files = {"bundle": ("agent.py" if content[:2] != b"PK" else "b.zip", content, "text/plain")}
    status, code, message = await api.refused("POST", f"/projects/{project_id}/builds", files=files)
    assert (status, code) == (422, "INVALID_BUNDLE")
    assert message
    assert platform.verifier.seen == []
    assert (await api.get(f"/projects/{project_id}/builds"))["builds"] == []


async def test_a_bundle_that_does_not_load_is_kept_and_never_runs(api: Any) -> None:
    project_id = await api.project()
    response = await api.upload(project_id, b"import nowhere\n")
    build = response.json()
    assert (response.status_code, build["validation_status"]) == (201, "invalid")
    assert "No module named 'nowhere'" in build["validation_error"]
    body = {"build_id": build["id"]}
    for path, given in (
        (f"/projects/{project_id}/promote", body),
        (f"/projects/{project_id}/rollback", body),
        ("/deployments", {"project_id": project_id, **body}),
    ):
        status, code, message = await api.refused("POST", path, json=given)
        assert (status, code) == (422, "INVALID_BUNDLE")
        assert "No module named 'nowhere'" in message
    assert (await api.refused("POST", f"/projects/{project_id}/promote"))[:2] == (409, "CONFLICT")


async def test_a_form_that_is_none_says_what_is_wanted(api: Any) -> None:
    path = f"/projects/{await api.project()}/builds"
    assert (await api.refused("POST", path, json={"bundle": "x"}))[:2] == (415, "UNSUPPORTED_MEDIA_TYPE")
    status, _, message = await api.refused("POST", path, files={"file": ("agent.py", GOOD)})
    assert status == 422
    assert "`bundle`" in message
    status, _, message = await api.refused("POST", path, data={"bundle": "text"}, files={"x": ("y", b"z")})
    assert status == 422
    assert "bundle" in message
    headers = {"content-type": "multipart/form-data; boundary=x"}
    for junk in (b"", b"junk", b"--x\r\n", b'--x\r\nContent-Disposition: form-data; name="bundle"\r\n\r\n'):
        status, _, _ = await api.refused("POST", path, content=junk, headers=headers)
        assert status in (400, 422), junk
    no_boundary = {"content-type": "multipart/form-data"}
    assert (await api.refused("POST", path, content=b"junk", headers=no_boundary))[0] in (400, 422)
    long = await api.upload(await api.project("b"), GOOD, message="m" * 501)
    assert (long.status_code, "`message`" in long.text) == (422, True)


async def test_an_oversized_upload_is_a_clear_413(platform: Any, api: Any) -> None:
    path = f"/projects/{await api.project()}/builds"
    status, code, message = await api.refused("POST", path, files={"bundle": ("agent.py", b"#" * 12_600_000)})
    assert (status, code) == (413, "PAYLOAD_TOO_LARGE")
    assert "12582912 bytes" in message


async def test_a_sandbox_that_is_away_is_a_503_and_nothing_is_kept(platform: Any, api: Any) -> None:
    project_id = await api.project()
    platform.verifier.unavailable = True
    files = {"bundle": ("agent.py", GOOD)}
    assert (await api.refused("POST", f"/projects/{project_id}/builds", files=files))[:2] == (
        503,
        "UNAVAILABLE",
    )
    assert (await api.get(f"/projects/{project_id}/builds"))["builds"] == []


async def test_promote_and_roll_back(api: Any) -> None:
    project_id = await api.project()
    builds = [await api.build(project_id, GOOD + b"#%d\n" % n) for n in range(3)]
    await api.build(project_id, b"import nowhere\n")
    promote, rollback = f"/projects/{project_id}/promote", f"/projects/{project_id}/rollback"
    assert (await api.refused("POST", rollback))[0] == 409
    assert await api.post(promote, {}, 200) == {"project_id": project_id, "active_build_id": builds[2]}
    assert (await api.post(rollback, None, 200))["active_build_id"] == builds[1]
    assert (await api.post(promote, {"build_id": builds[0]}, 200))["active_build_id"] == builds[0]
    assert (await api.refused("POST", rollback))[0] == 409
    assert (await api.refused("POST", promote, json={"build_id": str(uuid.uuid4())}))[0] == 404
    assert (await api.refused("POST", promote, json={"build_id": "junk"}))[0] == 404
    other = await api.project("Other")
    assert (await api.refused("POST", f"/projects/{other}/promote", json={"build_id": builds[0]}))[0] == 404


async def test_a_rollback_goes_back_to_what_was_in_service(api: Any) -> None:
    """And not to a build that was uploaded in between and never ran."""
    project_id = await api.project()
    first, _, third = [await api.build(project_id, GOOD + b"#%d\n" % n) for n in range(3)]
    rollback = f"/projects/{project_id}/rollback"
    for build_id in (first, third):
        await api.post(f"/projects/{project_id}/promote", {"build_id": build_id}, 200)
        await api.post("/deployments", {"project_id": project_id})
    assert (await api.post(rollback, None, 200))["active_build_id"] == first
    await api.post("/deployments", {"project_id": project_id})
    status, code, message = await api.refused("POST", rollback)
    assert (status, code) == (409, "CONFLICT")
    assert "name a `build_id`" in message


async def test_a_forced_deploy_is_active_until_somebody_has_ended_the_sessions(
    platform: Any, api: Any
) -> None:
    project_id = await api.project()
    build_id = await api.build(project_id)
    body = {"project_id": project_id, "build_id": build_id, "mode": "force"}
    job = await api.post("/deployments", body)
    assert (job["status"], job["completed_at"], job["mode"]) == ("active", None, "force")
    assert (await platform.store.deployed_agent(project_id)).build_id == build_id
    assert [active.id for active in await platform.store.active_deployments()] == [job["id"]]
    await platform.store.finish_deployment(
        job["id"], status=DeploymentStatus.COMPLETED, error=None, agent=None
    )
    done = await api.get(f"/deployments/{job['id']}")
    assert done["status"] == "completed"
    assert done["completed_at"] is not None


async def test_a_deploy_freezes_what_sessions_run_with(platform: Any, api: Any) -> None:
    project_id = await api.project()
    body = {"project_id": project_id}
    status, code, message = await api.refused("POST", "/deployments", json=body)
    assert (status, code) == (409, "CONFLICT")
    assert "promote" in message
    build_id = await api.build(project_id)
    await api.post(f"/projects/{project_id}/promote", {}, 200)
    path = f"/projects/{project_id}"
    await api.send("PATCH", f"{path}/session-settings", json={"key": "error_message", "value": "Pardon."})
    for key, value in (
        ("mode", "data"),
        ("agent_crash_policy", "restart_child"),
        ("shared_child_per_session", True),
    ):
        await api.send("PATCH", f"{path}/settings", json={"key": key, "value": value})
    await api.send("PUT", f"{path}/environment/AGENT_REGION", json={"value": "eu"})
    await api.post(f"{path}/secrets", {"name": "OPENAI_API_KEY", "value": "sk-123"})
    job = await api.post("/deployments", body)
    assert set(job) == {
        "id",
        "project_id",
        "build_id",
        "status",
        "mode",
        "error",
        "created_at",
        "completed_at",
    }
    assert (job["status"], job["build_id"], job["mode"], job["error"]) == (
        "completed",
        build_id,
        "drain",
        None,
    )
    assert await api.get(f"/deployments/{job['id']}") == job
    agent = await platform.store.deployed_agent(project_id)
    assert (agent.mode, agent.bundle_checksum) == ("data", hashlib.sha256(GOOD).hexdigest())
    assert agent.environment == {"AGENT_REGION": "eu", "AGENT_CRASH_TTS_MESSAGE": "Pardon."}
    assert (agent.agent_crash_policy, agent.shared_child_per_session) == ("restart_child", True)
    assert agent.secrets == {"OPENAI_API_KEY": "sk-123"}
    assert agent.settings.error_message == "Pardon."
    await api.send("PATCH", f"{path}/session-settings", json={"key": "error_message", "value": "Later."})
    frozen = await platform.store.deployed_agent(project_id)
    assert frozen.environment["AGENT_CRASH_TTS_MESSAGE"] == "Pardon."
    shown = await api.get(path)
    assert (shown["is_deployed"], shown["deployed_build_id"]) == (True, build_id)
    assert (await api.refused("DELETE", path))[:2] == (409, "CONFLICT")
    stranger = await platform.key(org_id=await _other_org(platform))
    assert (await stranger.refused("GET", f"/deployments/{job['id']}"))[0] == 404
    assert (await api.send("DELETE", path, params={"force": "true"})).status_code == 204


async def test_undeploying_is_a_job_of_its_own(platform: Any, api: Any) -> None:
    project_id = await api.project()
    undeploy = f"/projects/{project_id}/undeploy"
    assert (await api.refused("POST", undeploy))[:2] == (409, "NOT_DEPLOYED")
    build_id = await api.build(project_id)
    await api.post("/deployments", {"project_id": project_id, "build_id": build_id, "mode": "force"})
    job = await api.post(undeploy, None, 200)
    assert (job["status"], job["build_id"]) == ("completed", None)
    assert await api.get(f"/deployments/{job['id']}") == job
    assert await platform.store.deployed_agent(project_id) is None
    assert (await api.get(f"/projects/{project_id}"))["is_deployed"] is False


async def test_a_store_of_bundles_that_is_away_is_a_503_and_a_failed_job(platform: Any, api: Any) -> None:
    project_id = await api.project()
    build_id = await api.build(project_id)
    path = platform.bundles._path(hashlib.sha256(GOOD).hexdigest())
    path.unlink()
    path.mkdir()  # a directory is no file that can be read
    body = {"project_id": project_id, "build_id": build_id}
    assert (await api.refused("POST", "/deployments", json=body))[:2] == (503, "UNAVAILABLE")
    assert await platform.store.deployed_agent(project_id) is None
    assert await platform.store.active_deployments() == []


async def test_a_deploy_whose_bundle_is_lost_fails_and_says_so(platform: Any, api: Any) -> None:
    project_id = await api.project()
    build_id = await api.build(project_id)
    await platform.bundles.delete(hashlib.sha256(GOOD).hexdigest())
    job = await api.post("/deployments", {"project_id": project_id, "build_id": build_id})
    assert job["status"] == "failed"
    assert "upload it again" in job["error"]
    assert await platform.store.deployed_agent(project_id) is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "project_id"),
        ({"project_id": 1}, "`project_id`"),
        ({"project_id": "p", "mode": "gently"}, "`mode`"),
        ({"project_id": "p", "build_id": None}, "`build_id`"),
    ],
)
async def test_bad_deploy_bodies(api: Any, body: Any, words: str) -> None:
    status, _, message = await api.refused("POST", "/deployments", json=body)
    assert status == 422
    assert words in message


async def _other_org(platform: Any) -> str:
    """An org of its own, put beside the default one."""
    from sqlalchemy import insert

    from voicethere.adapters.store.tables import orgs

    org_id = str(uuid.uuid4())

    def add(connection: Any) -> None:
        connection.execute(insert(orgs).values(id=org_id, slug=org_id, name="other", created_at_ms=0))

    await platform.store._database.write(add)
    return org_id
