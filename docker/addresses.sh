#!/bin/sh
# Says where the system that runs here answers, and how to get in.
set -eu
cd "$(dirname "$0")/.."
cat <<SAID

  API     http://$(docker compose port api 8000)/docs
  MLflow  http://$(docker compose port mlflow 5000)

  docker compose run --rm barlow submit recipes/demo.yaml --watch     a first experiment
  docker compose run --rm barlow open                                 a link that lets a browser into MLflow
  docker compose run --rm barlow --help                               what else there is

  The first admin token is BARLOW_ADMIN_TOKEN in .env. It makes those of others:

  docker compose run --rm barlow token create NAME --role submitter
SAID
