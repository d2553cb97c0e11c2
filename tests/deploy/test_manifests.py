"""The manifests of k8s/: rendered by Kustomize, held against KubeRay's schemas and what they are meant to set."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from freqgan.errors import InputError, RunError
from launch.serve_application import ServeArguments
from launch.settings.exposure import TOKEN_VARIABLE
from launch.settings.policy import Policy
from launch.tools.create_rayjob import copy_of, create
from tests.support.commands import ROOT
from tests.support.manifests import island_entry_points, serve_config

K8S = ROOT / "k8s"
SCHEMAS = ROOT.parent / "shared" / "kuberay"
OVERLAYS = ("cpu-smoke", "gpu", "spot", "kueue", "interactive", "islands", "serve")
WITH_COMPONENTS = ("raycronjob", "monitoring")
Object = dict[str, Any]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Object]]:
    """The objects of every overlay, and of the spot overlay with all optional components."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, whose kustomize renders the overlays")
    copy = tmp_path_factory.mktemp("k8s") / "k8s"
    shutil.copytree(K8S, copy)
    everything = copy / "overlays" / "everything"
    shutil.copytree(copy / "overlays" / "spot", everything)
    text = (everything / "kustomization.yaml").read_text()
    for component in WITH_COMPONENTS:
        text = text.replace(f"# - ../../components/{component}", f"- ../../components/{component}")
    (everything / "kustomization.yaml").write_text(text)
    return {name: render(copy / "overlays" / name) for name in (*OVERLAYS, "everything")}


def render(folder: Path) -> list[Object]:
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def clusters(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every specification of a Ray cluster, by what it belongs to."""
    for one in objects:
        name = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] == "RayJob":
            yield name, one["spec"]["rayClusterSpec"]
        elif one["kind"] == "RayCronJob":
            yield name, one["spec"]["jobTemplate"]["rayClusterSpec"]
        elif one["kind"] == "RayService":
            yield name, one["spec"]["rayClusterConfig"]
        elif one["kind"] == "RayCluster":
            yield name, one["spec"]


def ray_pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    for name, cluster in clusters(objects):
        yield f"{name} head", cluster["headGroupSpec"]["template"]
        for group in cluster["workerGroupSpecs"]:
            yield f"{name} {group['groupName']}", group["template"]


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    yield from ray_pods(objects)
    for one in of_kind(objects, "CronJob"):
        yield "CronJob", one["spec"]["jobTemplate"]["spec"]["template"]


# -- KubeRay's schemas -----------------------------------------------------------------------------


def strict(schema: Any) -> Any:
    """The same schema, that refuses properties that it does not name."""
    if isinstance(schema, dict):
        schema = {key: strict(value) for key, value in schema.items()}
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        if schema.get("x-kubernetes-int-or-string"):
            schema.pop("type", None)
    elif isinstance(schema, list):
        schema = [strict(one) for one in schema]
    return schema


def test_every_object_of_ray_is_valid_strictly(rendered: dict[str, list[Object]]) -> None:
    if not SCHEMAS.is_dir():
        pytest.skip(f"no schemas at {SCHEMAS}")
    jsonschema = pytest.importorskip("jsonschema")
    checked = 0
    for overlay, objects in rendered.items():
        for one in objects:
            path = SCHEMAS / f"{one['kind']}.v1.json"
            if path.exists():
                validator = jsonschema.Draft202012Validator(strict(json.loads(path.read_text())["schema"]))
                problems = [f"{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in validator.iter_errors(one)]
                assert not problems, (overlay, one["metadata"]["name"], problems)
                checked += 1
    assert checked >= 15


def test_the_check_itself_refuses_a_misspelt_field(rendered: dict[str, list[Object]]) -> None:
    if not SCHEMAS.is_dir():
        pytest.skip(f"no schemas at {SCHEMAS}")
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(strict(json.loads((SCHEMAS / "RayJob.v1.json").read_text())["schema"]))
    job = deepcopy(of_kind(rendered["gpu"], "RayJob")[0])
    pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    pod["terminationGracePeriod"] = pod.pop("terminationGracePeriodSeconds")
    assert [error.message for error in validator.iter_errors(job)]


# -- what they are meant to set --------------------------------------------------------------------


def test_no_pod_may_do_more_than_it_needs(rendered: dict[str, list[Object]]) -> None:
    for overlay, objects in rendered.items():
        for name, pod in pods(objects):
            spec, where = pod["spec"], (overlay, name)
            assert spec["securityContext"]["runAsNonRoot"] is True, where
            assert spec["securityContext"]["runAsUser"] == 1000, where
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
            for container in spec["containers"]:
                context = container["securityContext"]
                assert context["allowPrivilegeEscalation"] is False, where
                assert context["readOnlyRootFilesystem"] is True, where
                assert context["capabilities"] == {"drop": ["ALL"]}, where
                assert container["resources"]["limits"].keys() >= {"cpu", "memory"}, where
                assert container["resources"]["requests"], where
                assert container["image"] == "CHANGE-ME/freqgan:0.1.0", where
                assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], where
                assert "AWS_SECRET_ACCESS_KEY" not in str(container), where
            assert not any("hostPath" in volume for volume in spec["volumes"]), where


def test_pods_of_ray(rendered: dict[str, list[Object]]) -> None:
    for overlay, objects in rendered.items():
        settings = {one["metadata"]["name"] for one in of_kind(objects, "ConfigMap")}
        for name, pod in ray_pods(objects):
            spec, where = pod["spec"], (overlay, name)
            (container,) = spec["containers"]
            assert spec["serviceAccountName"] == "freqgan", where
            assert spec["automountServiceAccountToken"] is False, where
            volumes = {volume["name"]: volume for volume in spec["volumes"]}
            assert volumes["shm"]["emptyDir"]["medium"] == "Memory", where
            assert mib(volumes["shm"]["emptyDir"]["sizeLimit"]) < mib(container["resources"]["limits"]["memory"]), where
            if "settings" in volumes or not name.startswith("RayService"):
                assert volumes["settings"]["configMap"]["name"] in settings, where
            hook = container["lifecycle"]["preStop"]["exec"]["command"]
            assert hook[0] == "freqgan-drain", where
            assert spec["terminationGracePeriodSeconds"] > int(hook[1]) + 30, where
            assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == "freqgan", where
            assert {"name": "metrics", "containerPort": 8080} in container["ports"], where
        for name, cluster in clusters(objects):
            assert cluster["authOptions"] == {"mode": "token"}, (overlay, name)
            assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", (overlay, name)
            assert cluster["rayVersion"] == installed("ray"), (overlay, name)


def mib(quantity: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()  # type: ignore[union-attr]  # else it fails here
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]


def installed(package: str) -> str:
    """The version in constraints.txt."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.startswith(f"{package}=="):
            return line.partition("==")[2]
    raise AssertionError(package)


def test_jobs(rendered: dict[str, list[Object]]) -> None:
    for overlay, objects in rendered.items():
        if overlay in ("islands", "serve"):
            continue  # these have other namespaces, see below
        jobs = {one["metadata"]["name"]: one for one in of_kind(objects, "RayJob")}
        assert jobs.keys() == {"freqgan-train", "freqgan-retrain"}
        for name, job in jobs.items():
            spec = job["spec"]
            assert spec["submissionMode"] == "HTTPMode", (overlay, name)
            assert spec["backoffLimit"] > 0, (overlay, name)
            assert spec["shutdownAfterJobFinishes"] is True, (overlay, name)
        assert jobs["freqgan-retrain"]["spec"]["suspend"] is True
        assert jobs["freqgan-train"]["spec"].get("suspend", False) is (overlay in ("kueue", "interactive"))
        assert len(of_kind(objects, "RayCluster")) == (overlay == "interactive")
        for one in objects:
            scoped = one["kind"] not in ("Namespace", "PriorityClass", "ClusterQueue", "ResourceFlavor")
            assert (one["metadata"].get("namespace") == "freqgan") is scoped, one["kind"]


def test_overlays(rendered: dict[str, list[Object]]) -> None:
    gpus = {
        overlay: [
            pod["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") for _, pod in ray_pods(objects)
        ]
        for overlay, objects in rendered.items()
    }
    assert set(gpus["cpu-smoke"]) == {None}
    assert gpus["gpu"] == [None, "1"] * 2
    spot = of_kind(rendered["spot"], "RayJob")[0]["spec"]["rayClusterSpec"]
    groups = {group["groupName"]: group for group in spot["workerGroupSpecs"]}
    assert groups["spot"]["labels"] == {"ray.io/market-type": "spot"}
    assert groups["steady"]["labels"] == spot["headGroupSpec"]["labels"] == {"ray.io/market-type": "on-demand"}
    assert "affinity" in groups["steady"]["template"]["spec"]
    assert groups["spot"]["template"]["spec"]["priorityClassName"] == "freqgan-spot"
    for job in of_kind(rendered["kueue"], "RayJob"):
        assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "freqgan"
    everything = rendered["everything"]
    (cron,) = of_kind(everything, "RayCronJob")
    template = next(one for one in of_kind(everything, "RayJob") if one["metadata"]["name"] == "freqgan-retrain")
    assert cron["spec"]["jobTemplate"]["rayClusterSpec"] == template["spec"]["rayClusterSpec"]
    assert cron["spec"]["jobTemplate"]["entrypoint"] == template["spec"]["entrypoint"]
    assert not of_kind(everything, "CronJob")


def test_islands_are_two_jobs_that_share_the_bucket_alone(rendered: dict[str, list[Object]]) -> None:
    objects = rendered["islands"]
    namespaces = [one["metadata"]["name"] for one in of_kind(objects, "Namespace")]
    assert namespaces == ["freqgan-coarse", "freqgan-detail"]
    kinds = ("ServiceAccount", "ConfigMap", "NetworkPolicy", "RayJob")
    for kind in kinds:
        assert [one["metadata"]["namespace"] for one in of_kind(objects, kind)] == namespaces, kind
    assert {one["kind"] for one in objects} == {"Namespace", *kinds}
    for one in of_kind(objects, "Namespace"):
        assert one["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    for job in of_kind(objects, "RayJob"):
        assert job["metadata"]["name"] == "freqgan-train"
        assert job["spec"].get("suspend", False) is False
        assert job["spec"]["submissionMode"] == "HTTPMode"
        assert job["spec"]["backoffLimit"] > 0
        assert job["spec"]["shutdownAfterJobFinishes"] is True
    for policy in of_kind(objects, "NetworkPolicy"):  # pods of another namespace would need a namespaceSelector
        (inside,) = (rule["to"] for rule in policy["spec"]["egress"] if "podSelector" in rule["to"][0])
        assert inside == policy["spec"]["ingress"][0]["from"]
        assert [one.keys() for one in inside] == [{"podSelector"}]
    coarse, detail = (one["data"] for one in of_kind(objects, "ConfigMap"))
    assert coarse == detail


def test_islands_train_every_stage_once(rendered: dict[str, list[Object]], tmp_path: Path) -> None:
    from freqgan.model.components import components
    from launch.settings.load import load_settings

    path = tmp_path / "settings.yaml"
    path.write_text(of_kind(rendered["islands"], "ConfigMap")[0]["data"]["settings.yaml"])
    shown = [job["spec"]["entrypoint"] for job in of_kind(rendered["islands"], "RayJob")]
    assert shown == list(island_entry_points().values())
    islands = []
    for entry_point in shown:
        *command, only = entry_point.split()
        assert command == ["python", "-m", "launch", "train", "/etc/freqgan/settings.yaml"]
        islands.append(load_settings(str(path), [only]))
    whole = load_settings(str(path), [])
    trained = [name for island in islands for name in island.only]
    assert trained == [name for component in components(whole) for name in component.stages]
    assert all(island.identity() == whole.identity() for island in islands)


def test_the_network_is_closed_but_for_what_is_needed(rendered: dict[str, list[Object]]) -> None:
    (policy,) = of_kind(rendered["gpu"], "NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert [[port["port"] for port in rule.get("ports", [])] for rule in policy["spec"]["ingress"]] == [
        [],
        [8265],
        [8080],
    ]
    assert all(rule["from"] for rule in policy["spec"]["ingress"])
    assert not of_kind(rendered["gpu"], "Ingress")


# -- the service -----------------------------------------------------------------------------------


def only(objects: list[Object], kind: str, name: str = "freqgan") -> Object:
    """The specification of the one object of a kind and a name."""
    (one,) = (one for one in of_kind(objects, kind) if one["metadata"]["name"] == name)
    return dict(one["spec"])


def test_a_service_has_a_namespace_of_its_own_and_no_training(rendered: dict[str, list[Object]]) -> None:
    objects = rendered["serve"]
    kinds = ["Namespace", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy", "NetworkPolicy", "RayService"]
    assert [one["kind"] for one in objects] == kinds
    assert {one["metadata"].get("namespace", one["metadata"]["name"]) for one in objects} == {"freqgan-serve"}
    assert objects[0]["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    assert objects[1]["automountServiceAccountToken"] is False


def test_workers_of_a_service_have_the_token_by_reference_and_room(rendered: dict[str, list[Object]]) -> None:
    service = only(rendered["serve"], "RayService")
    (group,) = service["rayClusterConfig"]["workerGroupSpecs"]
    container = group["template"]["spec"]["containers"][0]
    (token,) = (one for one in container["env"] if one["name"] == TOKEN_VARIABLE)
    assert token["valueFrom"] == {"secretKeyRef": {"name": "freqgan-serve", "key": "token"}}
    assert TOKEN_VARIABLE not in str(service["rayClusterConfig"]["headGroupSpec"])
    arguments = serve_config()["applications"][0]["args"]
    assert arguments["model"].startswith("s3://CHANGE-ME/models/")
    wanted = 1 + arguments["threads"] * arguments["max_replicas"]
    assert wanted <= group["maxReplicas"] * int(container["resources"]["limits"]["cpu"])
    assert 1 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert service["rayClusterDeletionDelaySeconds"] > ServeArguments(model="m").max_seconds


def test_a_pod_is_asked_for_answers_at_the_port_of_the_proxy(rendered: dict[str, list[Object]]) -> None:
    """The operator makes a Service of the port `serve` of the head, and its own probe wants a wget."""
    for name, pod in ray_pods(rendered["serve"]):
        container = pod["spec"]["containers"][0]
        assert {"name": "serve", "containerPort": 8000} in container["ports"], name
        probe = container.get("readinessProbe", {"httpGet": None})["httpGet"]
        assert probe == (None if "head" in name else {"path": "/-/healthz", "port": "serve"}), name


def test_the_autoscaler_alone_has_a_token_for_the_api_server(rendered: dict[str, list[Object]]) -> None:
    cluster = only(rendered["serve"], "RayService")["rayClusterConfig"]
    options, head = cluster["autoscalerOptions"], cluster["headGroupSpec"]["template"]["spec"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]}}.items() <= options["securityContext"].items()  # fmt: skip
    assert options["resources"]["limits"].keys() == {"cpu", "memory"}
    (mount,) = (one for one in options["volumeMounts"] if one["mountPath"].startswith("/var/run/secrets"))
    with_token = [one["name"] for _, pod in ray_pods(rendered["serve"]) for one in pod["spec"]["volumes"]
                  if "serviceAccountToken" in str(one)]  # fmt: skip
    assert with_token == [mount["name"]]
    assert mount["name"] not in str(head["containers"])
    assert {one["name"] for one in options["volumeMounts"]} <= {one["name"] for one in head["volumes"]}


def test_who_reaches_a_service(rendered: dict[str, list[Object]]) -> None:
    policy = only(rendered["serve"], "NetworkPolicy")
    by_port = {tuple(port["port"] for port in rule.get("ports", [])): rule["from"] for rule in policy["ingress"]}
    assert list(by_port) == [(), (8265,), (8080,), (8000,)]
    assert by_port[()] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "freqgan"}}}]
    assert by_port[(8000,)] == [{"namespaceSelector": {"matchLabels": {"freqgan-clients": "true"}}}]
    assert [[port["port"] for port in rule.get("ports", [])] for rule in policy["egress"]] == [[], [53, 53], [443]]
    api = only(rendered["serve"], "NetworkPolicy", "freqgan-autoscaler")
    assert api["policyTypes"] == ["Egress"]
    assert api["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "head"


def test_machines_with_workers_of_a_service_are_emptied_one_by_one(rendered: dict[str, list[Object]]) -> None:
    budget = only(rendered["serve"], "PodDisruptionBudget")
    labels = [pod["metadata"]["labels"] for name, pod in ray_pods(rendered["serve"]) if "head" not in name]
    assert budget["maxUnavailable"] == 1
    assert [budget["selector"]["matchLabels"].items() <= one.items() for one in labels] == [True]


def test_alerts_and_dashboard_ask_for_metrics_that_there_are(rendered: dict[str, list[Object]]) -> None:
    from cluster.ray_engine.metrics import RUN_GAUGES, STAGE_GAUGES

    known = {name for name, _ in (*STAGE_GAUGES.values(), *RUN_GAUGES.values())}
    known |= {"freqgan_exchanged_bytes_total", "freqgan_batch_bytes_total", "freqgan_recoveries_total"}
    (rules,) = of_kind(rendered["everything"], "PrometheusRule")
    dashboard = next(one for one in of_kind(rendered["everything"], "ConfigMap") if "freqgan.json" in one["data"])
    panels = json.loads(dashboard["data"]["freqgan.json"])["panels"]
    expressions = [rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]]
    expressions += [target["expr"] for panel in panels for target in panel["targets"]]
    used = {name for text in expressions for name in re.findall(r"ray_(freqgan_\w+)", text)}
    assert used <= known
    assert used == known, "a metric that no panel shows"
    alerts = {rule["alert"] for group in rules["spec"]["groups"] for rule in group["rules"]}
    assert alerts == {"FreqganStalled", "FreqganLag", "FreqganCheckpointOld", "FreqganRecoveries", "FreqganQuarantine"}
    (monitor,) = of_kind(rendered["everything"], "PodMonitor")
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] == "metrics"


def test_settings_and_policy_are_what_the_commands_take(rendered: dict[str, list[Object]], tmp_path: Path) -> None:
    from launch.settings.load import load_settings

    for overlay, objects in rendered.items():
        if overlay == "serve":
            continue  # it has no training
        settings = next(one for one in of_kind(objects, "ConfigMap") if "settings.yaml" in one["data"])
        path = tmp_path / f"{overlay}.yaml"
        path.write_text(settings["data"]["settings.yaml"])
        assert load_settings(str(path), []).run.startswith("s3://CHANGE-ME/runs/")
        policy = Policy.model_validate(yaml.safe_load(settings["data"]["policy.yaml"]))
        assert policy.run_settings("s3://b/run", "s3://b/shards", is_first=True).images == 500_000


def test_the_image() -> None:
    text = (K8S / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(bases) == 2
    assert all(re.search(r":\d+\.\d+\.\d+-", base) for base in bases)
    assert re.search(r"^USER 1000:1000$", text, re.MULTILINE)
    assert "-c constraints.txt" in text
    ignored = (ROOT / ".dockerignore").read_text().split()
    for source in re.findall(r"^COPY (?!--from)(?:--\S+ )?(.+) \S+$", text, re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists(), name
            assert f"!{name}" in ignored, name


# -- the CronJob -----------------------------------------------------------------------------------

TEMPLATE: Object = {
    "apiVersion": "ray.io/v1", "kind": "RayJob",
    "metadata": {
        "name": "freqgan-retrain", "uid": "x", "resourceVersion": "7",
        "labels": {"kueue.x-k8s.io/queue-name": "freqgan"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
    },
    "spec": {"suspend": True, "entrypoint": "python -m launch retrain", "jobId": "old"}, "status": {"a": 1},
}  # fmt: skip


def test_a_copy_of_a_template() -> None:
    assert copy_of(TEMPLATE) == {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"generateName": "freqgan-retrain-", "labels": {"kueue.x-k8s.io/queue-name": "freqgan"}},
        "spec": {"entrypoint": "python -m launch retrain"},
    }


def test_it_is_asked_of_the_api_server(tmp_path: Path) -> None:
    """Over HTTP, as the server of Kubernetes speaks it for custom resources."""
    asked: list[tuple[str, str, str | None]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, code: int, body: Object) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def do_GET(self) -> None:  # the names that the base class calls
            asked.append(("GET", self.path, self.headers["Authorization"]))
            self.answer(200, TEMPLATE) if self.path.endswith("/freqgan-retrain") else self.answer(
                404, {"message": "none"}
            )

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(("POST", self.path, self.headers["Authorization"]))
            if self.headers["Authorization"] != "Bearer right":
                self.answer(403, {"message": "forbidden"})
                return
            self.answer(201, body | {"metadata": {"name": body["metadata"]["generateName"] + "abcde"}})

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        (tmp_path / "token").write_text("right\n")
        assert create("freqgan-retrain", "freqgan", url, tmp_path) == "freqgan-retrain-abcde"
        path = "/apis/ray.io/v1/namespaces/freqgan/rayjobs"
        assert asked == [("GET", f"{path}/freqgan-retrain", "Bearer right"), ("POST", path, "Bearer right")]
        with pytest.raises(InputError, match="answers 404"):
            create("other", "freqgan", url, tmp_path)
        (tmp_path / "token").write_text("wrong")
        with pytest.raises(InputError, match=r"answers 403.*Role freqgan-scheduler"):
            create("freqgan-retrain", "freqgan", url, tmp_path)
        server.shutdown()
    with pytest.raises(RunError, match="cannot be reached"):
        create("freqgan-retrain", "freqgan", url, tmp_path)
