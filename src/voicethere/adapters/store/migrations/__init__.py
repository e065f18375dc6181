"""Alembic environment and steps of the store's schema; shipped with the package."""
