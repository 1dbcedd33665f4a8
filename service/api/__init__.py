"""The HTTP API: routers, problem details, streams. It reads the run database and the run directories, no more."""
