"""Migrations of the run database, oldest first in `versions`; found by service.database.migrate."""
