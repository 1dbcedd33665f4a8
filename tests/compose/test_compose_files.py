"""What can be known of the compose files and images without starting them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
import yaml
from deployment import ROOT, run, there, write_secrets
from small_registry import small_registry

OVERLAYS = {
    "docker/compose.gpu.yml": {},
    "docker/compose.first-host.yml": {"BARLOW_LAN": "10.0.0.1", "BARLOW_RUNS": "/srv/runs"},
    "docker/compose.second-host.yml": {"BARLOW_FIRST_HOST": "10.0.0.1", "BARLOW_RUNS": "/srv/runs"},
}
IMAGES = ("barlow-lab-api", "barlow-lab-worker", "barlow-lab-mlflow")
OURS = ("databases", "migrate", "api", "scheduler", "mlflow", "worker")
ONE_SHOT = ("databases", "migrate")
BASE = "python:3.11-slim-bookworm"
FROM_ELSEWHERE = ("PYTHON_IMAGE", "POSTGRES_IMAGE", "REDIS_IMAGE")
BUILD_TOOLS = ("pip", "git", "make", "curl", "wget", "gcc", "g++", "cc", "as", "ld", "rustc", "cmake")
COMPILER = {"gcc", "g++", "cc", "as", "ld"}
"""The worker's: torch compiles networks with it."""
REMEDY = "with `make up`, or with docker/secrets.sh"
NOT_FOR_CONTAINERS = {
    "BARLOW_API_PORT",
    "BARLOW_API_PORT_SHARED",
    "BARLOW_MLFLOW_HOME",
    "BARLOW_MLFLOW_PORT",
    "BARLOW_MLFLOW_PORT_SHARED",
    "BARLOW_RECIPES_DIR",
    "BARLOW_SAME_ACCOUNT",
    "BARLOW_CACHE_DIR",
}


@pytest.fixture(scope="module")
def env_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("secrets") / "env"
    write_secrets(file)
    return file


@pytest.fixture(scope="module", autouse=True)
def _engine() -> None:
    if not there():
        pytest.fail("make test-compose needs a Docker engine with Compose 2")


def _config(env_file: Path, *files: str, **settings: str) -> dict:
    words = [word for file in ("docker-compose.yml", *files) for word in ("--file", file)]
    command = ["docker", "compose", "--env-file", str(env_file), *words, "config", "--format", "json"]
    return dict(json.loads(run(command, **settings)))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_is_valid_and_changes_what_it_says(env_file: Path, overlay: str) -> None:
    plain, changed = _config(env_file), _config(env_file, overlay, **OVERLAYS[overlay])
    assert changed["services"].keys() == plain["services"].keys()
    assert changed["services"]["api"] == plain["services"]["api"]
    worker, postgres = changed["services"]["worker"], changed["services"]["postgres"]
    if overlay.endswith("gpu.yml"):
        (gpus,) = worker["deploy"]["resources"]["reservations"]["devices"]
        assert (gpus["driver"], gpus["count"], gpus["capabilities"]) == ("nvidia", -1, ["gpu"])
        assert worker["deploy"]["resources"]["limits"] == plain["services"]["worker"]["deploy"]["resources"]["limits"]
        assert int(worker["shm_size"]) == 8 * 2**30
        return
    assert changed["volumes"]["runs"]["driver_opts"]["device"] == "/srv/runs"
    if "first" in overlay:
        assert [(port["host_ip"], port["target"]) for port in postgres["ports"]] == [("10.0.0.1", 5432)]
        assert set(postgres["networks"]) == {"inside", "outside"}
    else:
        assert set(worker["networks"]) == {"outside"}
        assert "depends_on" not in worker
        assert "@10.0.0.1:5432/barlow" in worker["environment"]["BARLOW_DATABASE_URL"]


@pytest.mark.parametrize("overlay", [name for name, needed in OVERLAYS.items() if needed])
def test_an_overlay_names_the_settings_that_it_lacks(env_file: Path, overlay: str) -> None:
    with pytest.raises(AssertionError, match="|".join(OVERLAYS[overlay])):
        _config(env_file, overlay)


@pytest.mark.parametrize("empty", [False, True])
def test_without_secrets_it_stops_and_names_the_command(tmp_path: Path, empty: bool) -> None:
    if empty:
        (tmp_path / ".env").touch()
    command = ["docker", "compose", "--file", str(ROOT / "docker-compose.yml"), "--project-directory", str(tmp_path)]
    done = subprocess.run([*command, "up", "--no-start"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert REMEDY in done.stderr


def test_each_secret_that_is_missing_names_the_command(env_file: Path, tmp_path: Path) -> None:
    """Those of a later version in an older .env, too; Compose names any one of them."""
    lines = env_file.read_text().splitlines(keepends=True)
    for line in lines:
        name, less = line.partition("=")[0], tmp_path / "env"
        less.write_text("".join(other for other in lines if other != line))
        with pytest.raises(AssertionError, match=f"{name} is missing a value: .*{REMEDY}"):
            _config(less)


def test_secrets_are_random_written_once_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for file in (first, second):
        write_secrets(file)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines, others = (dict(line.split("=", 1) for line in file.read_text().splitlines()) for file in (first, second))
    assert lines.keys() == others.keys()
    assert {name for name in lines if lines[name] == others[name]} == {"BARLOW_NODE_NAME"}
    assert min(len(value) for name, value in lines.items() if name != "BARLOW_NODE_NAME") >= 48
    before = first.read_text()
    write_secrets(first)
    assert first.read_text() == before
    # An older installation, whose file lacks what came later, and whose last line lacks its end.
    first.write_text("REDIS_PASSWORD=kept\nBARLOW_SLOTS=3")
    write_secrets(first)
    later = dict(line.split("=", 1) for line in first.read_text().splitlines())
    assert (later["REDIS_PASSWORD"], later["BARLOW_SLOTS"]) == ("kept", "3")
    assert later.keys() == lines.keys() | {"BARLOW_SLOTS"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def test_the_gpus_are_asked_for_once_and_no_other_choice_of_files_is_overruled(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    script = ["sh", str(ROOT / "docker" / "gpus.sh"), str(file)]
    file.write_text("BARLOW_SLOTS=2\n")
    for _ in range(2):
        run(script)
        assert file.read_text() == "BARLOW_SLOTS=2\nCOMPOSE_FILE=docker-compose.yml:docker/compose.gpu.yml\n"
    file.write_text("COMPOSE_FILE=docker-compose.yml:docker/compose.second-host.yml\n")
    with pytest.raises(AssertionError, match=r"add :docker/compose\.gpu\.yml to that line"):
        run(script)
    with pytest.raises(AssertionError, match="GPU=all says nothing"):
        run(["make", "up", "GPU=all"])


def test_the_images_of_others_are_those_that_the_settings_name(env_file: Path) -> None:
    plain = _config(env_file)["services"]
    assert (plain["postgres"]["image"], plain["redis"]["image"]) == ("postgres:18-bookworm", "redis:7-bookworm")
    assert f"ARG PYTHON_IMAGE={BASE}\n" in (ROOT / "docker" / "Dockerfile").read_text()
    assert "PYTHON_IMAGE" not in {name for name, value in plain["api"]["build"]["args"].items() if value is not None}
    named = {name: f"mirror.example/{name.lower()}:1@sha256:{'0' * 64}" for name in FROM_ELSEWHERE}
    services = _config(env_file, **named)["services"]
    for name in ("api", "worker", "mlflow", "migrate"):
        assert services[name]["build"]["args"]["PYTHON_IMAGE"] == named["PYTHON_IMAGE"]
    for name in ("postgres", "redis"):
        assert services[name]["image"] == named[f"{name.upper()}_IMAGE"]


def test_digests_are_written_once_renewed_later_and_kept_where_no_registry_answers(
    tmp_path: Path,
) -> None:
    file = tmp_path / ".env"
    script = ["sh", str(ROOT / "docker" / "digests.sh"), str(file)]
    with small_registry("first") as (address, digest):
        images = {name: f"{address}/lab/{name.lower()}:1" for name in FROM_ELSEWHERE}
        others = "REDIS_PASSWORD=kept\n"
        file.write_text(others + "".join(f"{name}={image}\n" for name, image in images.items()).rstrip())
        for _ in range(2):
            run(script)
            assert file.read_text() == others + "".join(f"{name}={images[name]}@{digest}\n" for name in images)
    port = int(address.rsplit(":", 1)[1])
    with small_registry("second", port) as (_, newer):
        run(script)
        renewed = file.read_text()
        assert newer != digest
        assert renewed == others + "".join(f"{name}={images[name]}@{newer}\n" for name in images)
    with pytest.raises(AssertionError, match=rf"no registry gave {address}/lab/python_image:1 .*nothing was changed"):
        run(script)
    assert file.read_text() == renewed
    assert [path.name for path in tmp_path.iterdir()] == [".env"]
    for image in images.values():
        for name in (image, *(f"{image.removesuffix(':1')}@{known}" for known in (digest, newer))):
            run(["docker", "image", "rm", "--force", name], check=False)


def test_mlflow_is_published_apart_from_the_api(env_file: Path) -> None:
    services = _config(env_file, BARLOW_BIND="0.0.0.0")["services"]
    (api,), (mlflow,) = (services[name]["ports"] for name in ("api", "mlflow"))
    assert (api["host_ip"], mlflow["host_ip"]) == ("0.0.0.0", "127.0.0.1")


def test_only_the_api_and_mlflow_are_published_and_only_on_loopback(env_file: Path) -> None:
    services = _config(env_file)["services"]
    published = {(name, port["host_ip"]) for name, service in services.items() for port in service.get("ports", [])}
    assert published == {("api", "127.0.0.1"), ("mlflow", "127.0.0.1")}
    reached = {name for name, service in services.items() if "outside" in service["networks"]}
    assert reached == {"api", "mlflow"}


def test_every_service_runs_without_rights_and_comes_back(env_file: Path) -> None:
    for name, service in _config(env_file)["services"].items():
        assert service.get("read_only", False) == (name != "postgres"), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["init"], name
        # Ours are users of their images.
        assert service.get("user") == {"postgres": "postgres", "redis": "redis"}.get(name), name
        assert service["logging"]["options"], name
        assert "privileged" not in service, name
        assert "pids" in json.dumps(service.get("deploy", {})) or name in ONE_SHOT, name
        assert service["restart"] == ("on-failure:5" if name in ONE_SHOT else "unless-stopped"), name


def test_only_what_makes_databases_knows_the_superuser_and_what_migrates_the_owner(env_file: Path) -> None:
    found = _config(env_file)["services"]
    passwords = dict(line.split("=", 1) for line in env_file.read_text().splitlines())

    def knowing(name: str) -> set[str]:
        return {service for service, said in found.items() if passwords[name] in json.dumps(said)}

    assert knowing("POSTGRES_PASSWORD") == {"postgres", "databases"}
    assert knowing("BARLOW_OWNER_PASSWORD") == {"databases", "migrate"}
    assert knowing("MLFLOW_DATABASE_PASSWORD") == {"databases", "mlflow"}
    assert knowing("BARLOW_DATABASE_PASSWORD") == {"databases", "migrate", "api", "scheduler", "worker"}


def test_a_stop_gives_a_checkpoint_the_time_it_may_take(env_file: Path) -> None:
    from service.settings import Settings
    from worker.supervisor import DRAIN_SPARE_SECONDS

    grace = Settings.model_fields["stop_grace_seconds"].default
    allowed = _config(env_file)["services"]["worker"]["stop_grace_period"]
    assert allowed == "2m30s"
    assert 2 * grace + DRAIN_SPARE_SECONDS < 150


def test_every_setting_reaches_the_containers_and_no_other_is_made_up(env_file: Path) -> None:
    from service.settings import Settings
    from service.tracking.settings import TrackingSettings

    known = {f"BARLOW_{name.upper()}" for name in {**Settings.model_fields, **TrackingSettings.model_fields}}
    services = _config(env_file)["services"]
    given = {key for name in OURS for key in services[name]["environment"] if key.startswith("BARLOW_")}
    assert given == known - NOT_FOR_CONTAINERS


def test_no_proxy_of_the_engine_stands_between_them(env_file: Path) -> None:
    services = _config(env_file, COMPOSE_PROFILES="cli")["services"]
    for name in ("api", "mlflow", "worker", "barlow"):  # who asks by HTTP, be it in a health check
        environment = services[name]["environment"]
        assert (environment["NO_PROXY"], environment["no_proxy"]) == ("*", "*"), name


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_holds_no_root_no_open_file_no_build_tool_and_no_secret(images: None, image: str) -> None:
    (found,) = json.loads(run(["docker", "image", "inspect", image]))
    config = found["Config"]
    assert config["User"] == "barlow"
    labels = config["Labels"]
    assert labels["org.opencontainers.image.revision"] == run(["git", "rev-parse", "HEAD"]).strip()
    assert {"title", "description", "vendor"} <= {key.rsplit(".", 1)[1] for key in labels}
    assert not [line for line in config["Env"] if "PASSWORD" in line or "TOKEN" in line]

    def inside(script: str, image: str = image) -> list[str]:
        command = ["docker", "run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "sh", image]
        return run([*command, "-c", script]).split()

    assert inside("find / -xdev -type f -perm -o+w -not -path '/proc/*' -not -path '/sys/*'") == []
    assert inside("find / -xdev -type d -perm -o+w -not -perm -1000 -not -path '/proc/*'") == []
    set_uid = "find / -xdev -type f -perm /6000"
    assert set(inside(set_uid)) <= set(inside(set_uid, BASE))
    assert inside("find /opt/barlow ! -user root") == [], "the program cannot change itself"
    tools = f"for tool in {' '.join(BUILD_TOOLS)}; do command -v $tool; done; true"
    more = {Path(tool).name for tool in {*inside(tools)} - {*inside(tools, BASE)}}
    assert more == (COMPILER if image == "barlow-lab-worker" else set())
    assert inside("ls /opt/barlow/bin | grep -x pip || true") == []
    assert inside(r"find / -xdev \( -name .env -o -name .git -o -name id_rsa \)") == []
    left = "find / -xdev -type f \\( -path '/var/lib/apt/lists/*' -o -path '*/.cache/*' \\)"
    assert set(inside(left)) <= set(inside(left, BASE))
    history = run(["docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", image])
    assert "PASSWORD" not in history


def test_the_api_is_without_torch_and_small(images: None) -> None:
    sizes = {}
    for image in ("barlow-lab-api", BASE):
        (found,) = json.loads(run(["docker", "image", "inspect", image]))
        sizes[image] = found["Size"]
    assert sizes["barlow-lab-api"] - sizes[BASE] < 400e6, sizes
    strangers = ("torch", "trainer", "worker", "mlflow", "pip")
    script = f"import importlib.util as u; assert not any(map(u.find_spec, {strangers}))"
    run(["docker", "run", "--rm", "--network", "none", "barlow-lab-api", "python", "-c", script])


def test_what_is_not_code_is_not_sent_to_the_builder() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    code = {"barlow_lab", "recipes", "service", "trainer", "worker"}
    assert kept == {"pyproject.toml", "docker/requirements-*.txt"} | code
    assert yaml.safe_load((ROOT / "docker-compose.yml").read_text())["name"] == "barlow-lab"
    assert os.access(ROOT / "docker" / "secrets.sh", os.R_OK)
