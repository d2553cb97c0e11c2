"""What is wrong with a command line or a setting is answered before anything large is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LARGE = ("torch", "ray", "s3fs", "pywt", "scipy", "matplotlib", "webdataset", "numba")
REFUSED = """
trian
train
train no-such.yaml
train smoke batch=-1
train smoke bathc=3
train smoke transform=dwt:db200
train smoke data=no/shards
train smoke --bathc 3
submit smoke batch=-1 --address http://localhost:1
retrain no-such.yaml
plan smoke batch=-1
plan smoke --nodes 3xFOO
plan smoke --link-gbit no
generate no/run --count 1 --out x
generate no/run --count 0 --out x
super-resolve no/run image.png --out x
edit no/run --out x
encode no/run image.png --out x
generate no/run --out x
serve no/run
serve . --host 0.0.0.0
watch no/run
watch . --host 0.0.0.0
watch . --token-file no/file
watch . --port -1
serve . --device gpu
serve . --token-file no/file
style no/image.png no/style.png --out x
style no/image.png no/style.png --out x --strength much
digest no/run
report no/run
status no/run
shards verify no/shards
shards info no/shards
shards index no/shards
shards pack no/images out
shards pakc no/images out
evaluate no/run --data no/shards
compare smoke --data no/shards --out x
compare smok --data no/shards --out x
models list no/model
""".strip().splitlines()
ANSWERED = ["--help", "train --help", "--version"]
SETTINGS = """
import sys
from launch.settings.load import load_settings, preset_names
from launch.settings.policy import load_policy
for name in preset_names():
    load_settings(name, ["transform=dwt:bior4.4"])
    load_settings(name, ["transform=fft:meyer"]).identity()
load_policy("policy.yaml").run_settings("run", "data", is_first=True)
print(sorted(set(sys.argv[1:]) & sys.modules.keys()))
"""
COMMANDS = """
import json, sys
from launch.cli import main
lines, large = map(json.loads, sys.argv[1:])
for line in lines:
    try:
        main(line.split())
    except SystemExit as end:
        print(json.dumps([line, end.code, sorted(set(large) & sys.modules.keys())]), file=sys.stderr)
"""
POLICY = """
name: clothes
models: models
data: data
held_out: held-out
settings: smoke
images: 10
gate: {neighbours.recall: 0.1}
"""


def run_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(ROOT), "HOME": str(folder)}
    command = [sys.executable, "-c", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=True)


def test_settings_and_policies_are_validated_without_large_libraries(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    assert run_python(tmp_path, SETTINGS, *LARGE).stdout == "[]\n"


def test_what_cannot_be_used_is_refused_without_large_libraries(tmp_path: Path) -> None:
    done = run_python(tmp_path, COMMANDS, json.dumps([*ANSWERED, *REFUSED]), json.dumps(LARGE))
    outcomes = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("[")]
    assert outcomes == [[line, 0, []] for line in ANSWERED] + [[line, 2, []] for line in REFUSED]
    messages = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    assert len(messages) == len(REFUSED)
    assert all(message.startswith("error: ") for message in messages)
    assert list(tmp_path.iterdir()) == []
