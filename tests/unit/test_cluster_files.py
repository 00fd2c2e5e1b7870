"""The files of cluster/, as far as they can be judged without a cloud: by their programs' own schemas and checkers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import botocore.session
import kubernetes_validate
import pytest
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config
from sqlalchemy import make_url

from tests.cluster_files import (
    CLUSTER,
    KUBERAY,
    RAY_UP,
    ROOT,
    SHELL,
    kubernetes_objects,
    launched_commands,
    pod_templates,
    read_yaml,
    readme_commands,
    tool,
)

KUBERAY_FIELDS = {
    "RayCluster": (
        "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec "
        "headServiceAnnotations historyServerOptions managedBy networkPolicy rayVersion suspend tlsOptions "
        "upgradeStrategy workerGroupSpecs"
    ),
    "RayJob": (
        "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint entrypointNumCpus "
        "entrypointNumGpus entrypointResources jobId managedBy metadata preRunningDeadlineSeconds rayClusterSpec "
        "runtimeEnvYAML shutdownAfterJobFinishes submissionMode submitterConfig submitterPodTemplate suspend "
        "ttlSecondsAfterFinished"
    ),
    "authOptions": "enableK8sTokenAuth mode secretName",
    "autoscalerOptions": (
        "args command env envFrom idleTimeoutSeconds image imagePullPolicy resources securityContext upscalingMode "
        "version volumeMounts"
    ),
    "headGroupSpec": "enableIngress headService ingressOptions labels rayStartParams resources serviceType template",
    "workerGroupSpecs": (
        "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts priority rayStartParams replicas "
        "resources scaleStrategy suspend template"
    ),
}
"""What KubeRay 1.7 knows (ray-operator/config/crd/bases): of the two kinds, and of what lies in a cluster."""
READ_WRITE_MANY = ["ReadWriteMany"]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


# Shell


@pytest.mark.parametrize("path", SHELL, ids=named)
def test_shell_scripts_have_no_faults(path: Path) -> None:
    found = tool("shellcheck", "--shell=bash", str(path))
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("path", RAY_UP, ids=named)
def test_commands_of_ray_up_have_no_faults(path: Path) -> None:
    script = "\n".join(["#!/usr/bin/env bash", *launched_commands(read_yaml(path))])
    found = tool("shellcheck", "--shell=bash", "--exclude=SC2016", "-", told=script)  # it writes $HOME into a file
    assert found.returncode == 0, found.stdout


def test_the_readmes_commands_are_shell() -> None:
    found = subprocess.run(["bash", "-n"], input="\n".join(readme_commands()), capture_output=True, text=True)
    assert found.returncode == 0 and not found.stderr, found.stderr


@pytest.mark.parametrize("path", SHELL, ids=named)
def test_shell_scripts_can_be_started(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
    assert path.suffix == ".sbatch" or path.stat().st_mode & 0o111, f"chmod +x {path}"


# Images and services


def test_the_dockerfile_has_no_faults() -> None:
    found = tool("hadolint", str(CLUSTER / "Dockerfile"))
    assert found.returncode == 0, found.stdout


def test_images_run_as_a_user() -> None:
    stages = (CLUSTER / "Dockerfile").read_text(encoding="utf-8").split("\nFROM ")[1:]
    assert len(stages) == 2 and all("\nUSER 1000:1000\n" in stage and "\nHEALTHCHECK " in stage for stage in stages)


def test_what_images_copy_is_there_and_not_ignored() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    for line in (CLUSTER / "Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY"):
            for source in [word for word in line.split()[1:-1] if not word.startswith("--")]:
                assert (ROOT / source).exists(), line
                assert source in let_in or f"cluster/*{Path(source).suffix}" in let_in, line


def test_compose_file_fits_its_schema() -> None:
    found = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(CLUSTER / "compose.yaml"))
    assert found.returncode == 0, found.stdout


def test_services_answer_on_loopback_alone() -> None:
    services = read_yaml(CLUSTER / "compose.yaml")["services"].values()
    published = [port for service in services for port in service.get("ports", ())]
    assert len(published) == 3
    assert all(port.startswith(("127.0.0.1:", "${BIND:-127.0.0.1}:")) for port in published)


def test_services_that_stay_are_watched_and_keep_their_data() -> None:
    compose = read_yaml(CLUSTER / "compose.yaml")
    services = compose["services"]
    assert all("healthcheck" in services[name] for name in ("postgres", "minio"))  # mlflow's is in its image
    kept = {volume.split(":")[0] for name in ("postgres", "minio") for volume in services[name]["volumes"]}
    assert kept == set(compose["volumes"])
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)


def test_mlflow_writes_into_a_bucket_that_is_made() -> None:
    services = read_yaml(CLUSTER / "compose.yaml")["services"]
    buckets = {word.removeprefix("store/") for word in services["buckets"]["command"] if word.startswith("store/")}
    target = next(word for word in services["mlflow"]["command"] if word.startswith("--artifacts-destination="))
    assert target.partition("=s3://")[2] in buckets


def test_mlflows_image_has_the_driver_that_its_address_names() -> None:
    command = read_yaml(CLUSTER / "compose.yaml")["services"]["mlflow"]["command"]
    (store,) = [word.partition("=")[2] for word in command if word.startswith("--backend-store-uri=")]
    driver = make_url(store).get_dialect().import_dbapi().__name__  # as installed here, from the same constraints
    installed = re.findall(r"pip install .* mlflow (.*)", (CLUSTER / "Dockerfile").read_text(encoding="utf-8"))[0]
    assert f"{driver}-binary" in installed.split()


def test_what_compose_asks_for_is_in_the_example() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (CLUSTER / "compose.yaml").read_text(encoding="utf-8")))
    example = (CLUSTER / "env.example").read_text(encoding="utf-8").splitlines()
    assert asked == {line.partition("=")[0] for line in example if line and line[0] != "#"}


# Kubernetes


@pytest.mark.parametrize("name", pod_templates())
def test_pods_fit_kubernetes(name: str) -> None:
    template = pod_templates()[name]
    metadata = {"name": "x", **template.get("metadata", {})}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("kind", ["PersistentVolumeClaim", "Deployment", "Service", "Pod"])
def test_other_objects_fit_kubernetes(kind: str) -> None:
    found = [each for each in kubernetes_objects() if each["kind"] == kind]
    assert found
    for each in found:
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("name", pod_templates())
def test_pods_are_held_short(name: str) -> None:
    spec = pod_templates()[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 1000
    for container in spec["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert {"cpu", "memory"} <= set(container["resources"]["limits"]) & set(container["resources"]["requests"])
        known = {volume["name"] for volume in spec.get("volumes", ())}
        assert {mount["name"] for mount in container.get("volumeMounts", ())} <= known


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob"])
def test_kuberay_knows_the_fields(kind: str) -> None:
    spec = next(each["spec"] for each in kubernetes_objects() if each["kind"] == kind)
    assert set(spec) <= set(KUBERAY_FIELDS[kind].split())
    cluster = spec.get("rayClusterSpec", spec)
    assert set(cluster) <= set(KUBERAY_FIELDS["RayCluster"].split())
    for part in ("authOptions", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs"):
        for each in cluster[part] if isinstance(cluster[part], list) else [cluster[part]]:
            assert set(each) <= set(KUBERAY_FIELDS[part].split())


def ray_cluster() -> dict[str, Any]:
    return next(each["spec"] for each in kubernetes_objects() if each["kind"] == "RayCluster")


def test_a_job_makes_the_same_cluster() -> None:
    job = next(each["spec"] for each in kubernetes_objects() if each["kind"] == "RayJob")
    assert job["rayClusterSpec"] == ray_cluster()
    assert job["backoffLimit"] > 0 and job["shutdownAfterJobFinishes"]
    assert job["entrypoint"].startswith("tune-or-resume /shared/")


def test_no_trial_runs_on_the_head_and_gpus_come_with_the_trials() -> None:
    cluster = ray_cluster()
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    (workers,) = cluster["workerGroupSpecs"]
    assert cluster["enableInTreeAutoscaling"] and 0 <= workers["minReplicas"] < workers["maxReplicas"]
    resources = workers["template"]["spec"]["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "1"


def test_every_request_needs_the_token() -> None:
    auth = ray_cluster()["authOptions"]
    assert auth["mode"] == "token"
    assert any(f"secret generic {auth['secretName']} --from-literal=auth_token=" in line for line in readme_commands())


def test_a_pod_gives_notice_and_has_the_time_to_leave() -> None:
    (workers,) = ray_cluster()["workerGroupSpecs"]
    spec = workers["template"]["spec"]
    command = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert command[0] == "give-notice" and spec["terminationGracePeriodSeconds"] >= int(command[1]) + 30
    assert "/usr/local/bin/give-notice\n" in (CLUSTER / "Dockerfile").read_text(encoding="utf-8")


def test_nodes_share_what_they_mount() -> None:
    claims = {e["metadata"]["name"]: e["spec"] for e in kubernetes_objects() if e["kind"] == "PersistentVolumeClaim"}
    cluster = ray_cluster()
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    for pod in pods:
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts == {"shared": "/shared", "hub": "/hub", "shm": "/dev/shm"}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
        for name in ("shared", "hub"):
            assert claims[volumes[name]["persistentVolumeClaim"]["claimName"]]["accessModes"] == READ_WRITE_MANY
        assert {"name": "HF_HOME", "value": "/hub"} in pod["containers"][0]["env"]


def test_every_ray_pod_is_asked_for_its_health() -> None:
    cluster = ray_cluster()
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        for probe in ("readinessProbe", "livenessProbe"):
            # the dashboard agent's own port, and a path that needs no token (ray/dashboard/http_server_agent.py)
            assert container[probe]["httpGet"] == {"path": "/api/healthz", "port": 52365}


def test_the_job_names_the_mlflow_that_is_made() -> None:
    service = next(each for each in kubernetes_objects() if each["kind"] == "Service")
    job = next(each["spec"] for each in kubernetes_objects() if each["kind"] == "RayJob")
    address = f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert f"--tracking-uri {address} " in job["entrypoint"]


def test_the_readme_applies_all_of_kuberay() -> None:
    text = (CLUSTER / "README.md").read_text(encoding="utf-8")
    assert all(f"-f cluster/kuberay/{path.name}" in text for path in KUBERAY)


# ray up


@pytest.mark.parametrize("path", RAY_UP, ids=named)
def test_ray_accepts_its_files(path: Path) -> None:
    validate_config(prepare_config(read_yaml(path)))


@pytest.mark.parametrize("path", RAY_UP, ids=named)
def test_clusters_of_ray_up_are_closed_and_their_heads_idle(path: Path) -> None:
    config = read_yaml(path)
    (head,) = [line for line in config["head_start_ray_commands"] if "--head" in line]
    assert {"--num-cpus=0", "--num-gpus=0", "--dashboard-host=127.0.0.1"} <= set(head.split())
    starts = [line for line in launched_commands(config) if "ray start" in line]
    assert len(starts) == 2 and all("RAY_AUTH_MODE=token ray start" in line for line in starts)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("'export RAY_AUTH_MODE=token'" in line for line in config["setup_commands"])


@pytest.mark.parametrize("path", RAY_UP, ids=named)
def test_what_ray_up_mounts_is_there(path: Path) -> None:
    made_by_the_user = {"~/.ray/auth_token", "dist"}
    config = read_yaml(path)
    for source in set(config["file_mounts"].values()) - made_by_the_user:
        assert (ROOT / source).exists()
    assert any("/shared" in line for line in config.get("initialization_commands", config["setup_commands"]))
    assert any("HF_HOME=/shared/" in line for line in config["setup_commands"])


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_cloud_nodes_come_and_go_and_hear_of_their_end(cloud: str) -> None:
    config = read_yaml(CLUSTER / "ray-up" / f"{cloud}.yaml")
    head, gpu = config["available_node_types"]["head"], config["available_node_types"]["gpu"]
    assert head["resources"] == {"CPU": 0, "GPU": 0} and gpu["resources"]["GPU"] > 0
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, config["max_workers"]) and config["idle_timeout_minutes"]
    (watcher,) = [line for line in config["worker_start_ray_commands"] if "spot-notice.sh" in line]
    assert f"spot-notice.sh {cloud} " in watcher and watcher.endswith("&")


def test_aws_knows_what_is_asked_of_it() -> None:
    shape = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for kind in read_yaml(CLUSTER / "ray-up" / "aws.yaml")["available_node_types"].values():
        faults = ParamValidator().validate({**kind["node_config"], "MinCount": 1, "MaxCount": 1}, shape)
        assert not faults.has_errors(), faults.generate_report()
