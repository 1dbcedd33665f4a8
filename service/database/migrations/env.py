"""Run by alembic: applies the migrations on the connection that service.database.migrate hands over."""

from __future__ import annotations

from alembic import context

from service.database.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
