"""What stands in examples/: each file is what its tool takes, and the scripts do what they say."""

import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import HardwareConfig, hardware_here
from tests.repository import BIN, ROOT

EXAMPLES = ROOT / "examples"
KUBERNETES = "1.29"


def test_the_image_is_what_hadolint_takes() -> None:
    done = subprocess.run([BIN / "hadolint", EXAMPLES / "docker" / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    # What is copied is there, and nothing else is sent to the builder.
    text = (EXAMPLES / "docker" / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for name in line.split()]
    assert all((ROOT / name).exists() for name in copied)
    ignored = (EXAMPLES / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignored == ["*", *(f"!{name}" for name in copied)]
    assert re.search(r"^USER [1-9]", text, re.MULTILINE), "not root"
    assert "HEALTHCHECK" in text


def test_scripts_are_what_shellcheck_takes() -> None:
    scripts = [EXAMPLES / "slurm" / "selftrain.sbatch"]
    done = subprocess.run([BIN / "shellcheck", *scripts], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    for name in ("setup", "run"):
        text = "#!/bin/bash\n" + yaml.safe_load((EXAMPLES / "skypilot" / "selftrain.yaml").read_text())[name]
        done = subprocess.run([BIN / "shellcheck", "-e", "SC1091", "-"], input=text, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "")


def write_command(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{textwrap.dedent(script)}")
    path.chmod(0o755)


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A folder with stand-ins for Slurm's commands and ours, which write down what they are asked for."""
    commands = tmp_path / ".venv" / "bin"
    commands.mkdir(parents=True)
    write_command(commands, "srun", 'echo "srun $*" >> said; exec sleep 60')
    write_command(commands, "scontrol", 'echo "scontrol $*" >> said')
    write_command(
        commands,
        "selftrain",
        """\
        echo "selftrain $* with $SELFTRAIN_HARDWARE" >> said
        trap 'echo saved >> said; exit 143' TERM
        for _ in $(seq ${SECONDS_OF_WORK:-1}); do sleep 1 & wait $!; done
        exit ${ENDS_WITH:-0}
        """,
    )
    return tmp_path


def submitted(folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    settings = {"SLURM_JOB_ID": "7", "SLURMD_NODENAME": "node0", "SLURM_JOB_NUM_NODES": "2"} | environment
    script = EXAMPLES / "slurm" / "selftrain.sbatch"
    return subprocess.Popen(["bash", script], cwd=folder, env=os.environ | settings)


@pytest.mark.parametrize("status", [0, 3])
def test_slurm_runs_all_nodes_and_ends_as_dvc_does(cluster: Path, status: int) -> None:
    assert submitted(cluster, ENDS_WITH=str(status)).wait(timeout=120) == status
    said = set((cluster / "said").read_text().splitlines())
    assert said == {
        "srun --nodes=1 --ntasks=1 --exclude=node0 selftrain follow",
        "selftrain repro with engine=torchrun nodes=2 rendezvous=node0:29400",
    }


def told_to_end(cluster: Path, **environment: str) -> list[str]:
    """What is said by a job that Slurm tells to end while it works."""
    job, said = submitted(cluster, SECONDS_OF_WORK="50", **environment), cluster / "said"
    until = time.monotonic() + 60
    while time.monotonic() < until and not (said.exists() and "selftrain repro" in said.read_text()):
        time.sleep(0.05)
    time.sleep(0.5)
    job.terminate()
    assert job.wait(timeout=120) == 0
    return said.read_text().splitlines()


def test_slurm_takes_a_job_that_was_told_to_end_again(cluster: Path) -> None:
    assert told_to_end(cluster, SLURM_JOB_NUM_NODES="1") == ["selftrain repro with ", "saved", "scontrol requeue 7"]


def test_slurm_takes_a_job_again_whose_other_nodes_have_ended(cluster: Path) -> None:
    write_command(cluster / ".venv" / "bin", "srun", 'echo "srun $*" >> said; exit 1')
    assert told_to_end(cluster)[-2:] == ["saved", "scontrol requeue 7"]


def pods(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Every pod's template inside a custom resource."""
    if isinstance(document.get("template"), dict) and "containers" in document["template"].get("spec", {}):
        return [document["template"]]
    found = []
    for value in document.values():
        for item in value if isinstance(value, list) else [value]:
            found += pods(item) if isinstance(item, dict) else []
    return found


@pytest.mark.parametrize(("name", "kind", "count"), [("pytorchjob", "PyTorchJob", 2), ("rayjob", "RayJob", 2)])
def test_kubernetes_takes_the_pods(name: str, kind: str, count: int) -> None:
    document = yaml.safe_load((EXAMPLES / "kubernetes" / f"{name}.yaml").read_text())
    assert document["kind"] == kind
    templates = pods(document["spec"])
    assert len(templates) == count
    for template in templates:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        spec = template["spec"]
        volumes = {volume["name"] for volume in spec["volumes"]}
        for container in spec["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert spec["securityContext"]["runAsNonRoot"] is True
        with pytest.raises(kubernetes_validate.ValidationError):
            broken = {**pod, "spec": {**spec, "containers": [{"image": 3}]}}
            kubernetes_validate.validate(broken, KUBERNETES, strict=True)


def test_what_scripts_say_of_the_machine_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [path.read_text() for path in EXAMPLES.rglob("*") if path.is_file()]
    said = [found for text in texts for found in re.findall(r'SELFTRAIN_HARDWARE="([^"]+)"', text)]
    assert len(said) == 3
    for words in said:
        filled = re.sub(r"\$SLURM_JOB_NUM_NODES", "4", words)
        monkeypatch.setenv("SELFTRAIN_HARDWARE", re.sub(r"\$[A-Z_]+", "host", filled))
        machine = HardwareConfig.model_validate(hardware_here())
        assert machine.engine == ("ray" if "ray" in words else "torchrun")
        assert (machine.nodes == 1) == (machine.engine == "ray")
    monkeypatch.setenv("SELFTRAIN_HARDWARE", "threads=3 precision=fp32 compile=true")
    assert hardware_here() == {"threads": 3, "precision": "fp32", "compile": True}
    for wrong in ("device=[cuda", "workers=*", "workers=2024-13-45", "workers=1 workers=2", "threads 3"):
        monkeypatch.setenv("SELFTRAIN_HARDWARE", wrong)
        with pytest.raises(UserError, match="SELFTRAIN_HARDWARE: "):
            hardware_here()
    monkeypatch.setenv("SELFTRAIN_HARDWARE", "threads 3")
    with pytest.raises(UserError, match="'threads' is not `name=value`"):
        hardware_here()


def test_a_mistake_in_the_machines_environment_is_named(tmp_path: Path) -> None:
    settings = os.environ | {"SELFTRAIN_HARDWARE": "engine=rai"}
    done = subprocess.run(
        [sys.executable, "-m", "selftrain", "check"], cwd=ROOT, env=settings, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: SELFTRAIN_HARDWARE, laid over params.yaml: hardware")
    assert "engine" in done.stderr


def test_skypilot_and_compose_have_what_they_need() -> None:
    sky = yaml.safe_load((EXAMPLES / "skypilot" / "selftrain.yaml").read_text())
    assert sky.keys() <= {"name", "resources", "num_nodes", "workdir", "file_mounts", "setup", "run", "envs", "secrets"}
    assert sky["resources"].keys() <= {"accelerators", "disk_size", "use_spot", "cpus", "memory", "infra"}
    for mount in sky["file_mounts"].values():
        assert mount.keys() <= {"name", "source", "store", "mode"}
    compose = yaml.safe_load((EXAMPLES / "mlflow" / "compose.yaml").read_text())
    database, mlflow = compose["services"]["database"], compose["services"]["mlflow"]
    assert mlflow["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert "pg_isready" in str(database["healthcheck"]["test"])
    assert mlflow["healthcheck"]["test"] == ["CMD", "curl", "-fsS", "http://127.0.0.1:5000/health"]
    assert mlflow["ports"] == ["${MLFLOW_BIND:-127.0.0.1}:5000:5000"], "this machine alone, if nobody says otherwise"
    (store,) = [word for word in mlflow["command"] if word.startswith("--backend-store-uri=")]
    assert "@database/" in store
