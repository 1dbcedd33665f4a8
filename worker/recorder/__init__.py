"""The recorder: journals of attempts → Postgres and MLflow, each at its own pace, every point once."""
