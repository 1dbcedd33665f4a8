"""The Python client of the API, and the `barlow` command."""
