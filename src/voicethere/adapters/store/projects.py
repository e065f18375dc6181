"""Projects and what is configured for them: functions on a connection."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from sqlalchemy import Column, Connection, Row, Select, Table, delete, select, update

from voicethere.adapters.store import columns
from voicethere.adapters.store.records import StoreConflict
from voicethere.adapters.store.tables import deployed_agents, projects
from voicethere.wire.control_plane import Project

Settings = TypeVar("Settings", bound=msgspec.Struct)


def require_project(connection: Connection, project_id: str, *, org_id: str | None = None) -> None:
    """Raises LookupError where there is no such project (of this org).

    One that is there cannot be deleted before the transaction ends.
    """
    query = select(projects.c.id).where(projects.c.id == project_id)
    query = query.with_for_update(read=True, key_share=True)
    if org_id is not None:
        query = query.where(projects.c.org_id == org_id)
    if connection.execute(query).first() is None:
        raise LookupError(f"there is no project {project_id!r}")


def create_project(connection: Connection, now_ms: int, *, org_id: str, name: str, slug: str) -> Project:
    """A new project with default settings; StoreConflict where the slug is taken."""
    project_id = str(uuid.uuid4())
    inserted = columns.count_inserted(
        connection,
        columns.insert(connection, projects)
        .values(id=project_id, org_id=org_id, name=name, slug=slug, created_at_ms=now_ms)
        .on_conflict_do_nothing(index_elements=["org_id", "slug"]),
    )
    if inserted == 0:
        raise StoreConflict(f"there is a project with the slug {slug!r} already: choose another one")
    project = get_project(connection, project_id, org_id=org_id)
    assert project is not None
    return project


def list_projects(connection: Connection, org_id: str) -> Sequence[Project]:
    """By name."""
    query = _projects().where(projects.c.org_id == org_id).order_by(projects.c.name, projects.c.slug)
    return [_project(row) for row in connection.execute(query)]


def get_project(connection: Connection, project_id: str, *, org_id: str) -> Project | None:
    """The project, where the org has it."""
    query = _projects().where(projects.c.id == project_id, projects.c.org_id == org_id)
    row = connection.execute(query).first()
    return None if row is None else _project(row)


def delete_project(connection: Connection, project_id: str, *, org_id: str) -> bool:
    """Whether it was there. Everything that belongs to it goes with it, by the foreign keys."""
    mine = (projects.c.id == project_id) & (projects.c.org_id == org_id)
    return connection.execute(delete(projects).where(mine)).rowcount > 0


def get_settings(
    connection: Connection,
    project_id: str,
    column: Column[str],
    kind: type[Settings],
    *,
    org_id: str | None = None,
) -> Settings:
    """The settings in one of the project's columns, or their defaults where none were put.

    Raises:
        LookupError: there is no such project (of this org).
    """
    query = select(column).where(projects.c.id == project_id)
    if org_id is not None:
        query = query.where(projects.c.org_id == org_id)
    row = connection.execute(query).first()
    if row is None:
        raise LookupError(f"there is no project {project_id!r}")
    return kind() if row[0] is None else msgspec.json.decode(row[0], type=kind)


def put_settings(
    connection: Connection, project_id: str, column: Column[str], settings: msgspec.Struct
) -> None:
    """Raises LookupError where there is no such project."""
    values = {column.name: columns.to_json(settings)}
    changed = connection.execute(update(projects).where(projects.c.id == project_id).values(values))
    if changed.rowcount == 0:
        raise LookupError(f"there is no project {project_id!r}")


def get_pairs(connection: Connection, table: Table, project_id: str) -> dict[str, str]:
    """The project's environment or secrets, by name. The first column after the project is the name."""
    _, name, value = table.c
    rows = connection.execute(select(name, value).where(table.c.project_id == project_id).order_by(name))
    return {row[0]: row[1] for row in rows}


def put_pair(connection: Connection, table: Table, project_id: str, name: str, value: str) -> None:
    """Raises LookupError where there is no such project."""
    require_project(connection, project_id)
    owner, key, text = table.c
    connection.execute(
        columns.insert(connection, table)
        .values({owner.name: project_id, key.name: name, text.name: value})
        .on_conflict_do_update(index_elements=[owner, key], set_={text.name: value})
    )


def delete_pair(connection: Connection, table: Table, project_id: str, name: str) -> bool:
    """Whether it was there."""
    owner, key, _ = table.c
    return connection.execute(delete(table).where(owner == project_id, key == name)).rowcount > 0


def _projects() -> Select[tuple[object, ...]]:
    return select(
        projects.c.id,
        projects.c.org_id,
        projects.c.name,
        projects.c.slug,
        projects.c.active_build_id,
        projects.c.created_at_ms,
        deployed_agents.c.build_id.label("deployed_build_id"),
        deployed_agents.c.deployed_at_ms,
    ).select_from(projects.outerjoin(deployed_agents))


def _project(row: Row[tuple[object, ...]]) -> Project:
    return Project(
        id=row.id,
        org_id=row.org_id,
        name=row.name,
        slug=row.slug,
        active_build_id=row.active_build_id,
        deployed_build_id=row.deployed_build_id,
        deployed_at=columns.to_wire_or_none(row.deployed_at_ms),
        is_deployed=row.deployed_build_id is not None,
        created_at=columns.to_wire(row.created_at_ms),
    )
