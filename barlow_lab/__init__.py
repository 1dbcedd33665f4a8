"""What the trainer, the service, the workers and a user's program agree on: no torch, no server."""
