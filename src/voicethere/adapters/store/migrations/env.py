"""Alembic runs this module for every command; `migrate` hands in the connection with its transaction."""

from __future__ import annotations

from alembic import context

from voicethere.adapters.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite alters tables by copying them.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
