"""On a device, `import vmp_edge` imports no torch, no compiler and nothing slow."""

import json
import subprocess
import sys

from bundles import SUPPORT

BLOCKED = (
    "torch",
    "torchvision",
    "executorch",
    "torchao",
    "tvm",
    "onnx",
    "onnxruntime",
    "openvino",
    "coremltools",
    "pygame",
    "paho",
    "aiohttp",
    "matplotlib",
    "sklearn",
)

PRELUDE = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ImportError(f"{{name}} must not be imported here")
sys.meta_path.insert(0, Block())
sys.path.insert(0, {str(SUPPORT)!r})
"""


def run_python(code, *arguments):
    """Run code in a new interpreter in which the heavy packages cannot be imported. Return its output."""
    command = [sys.executable, "-c", PRELUDE + code, *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_importing_the_package_imports_nothing_heavy():
    loaded = json.loads(run_python("import vmp_edge, json; print(json.dumps(sorted(sys.modules)))"))
    heavy = {"cv2", "numpy", "yaml", *BLOCKED} & set(loaded)
    assert not heavy, "these must be imported only when they are needed"


def test_every_public_name_works_without_torch():
    code = """
import vmp_edge
assert all(getattr(vmp_edge, name) is not None for name in vmp_edge.__all__)
assert set(vmp_edge.__all__) <= set(dir(vmp_edge))
print(vmp_edge.load.__module__)
"""
    assert run_python(code).strip() == "vmp_edge.loading"


def test_an_unknown_name_is_an_attribute_error():
    run_python("import vmp_edge; assert not hasattr(vmp_edge, 'nonsense')")


def test_recognising_needs_no_torch(bundle, video):
    code = """
import brightness_engine
brightness_engine.register()
from vmp_edge.cli import main
sys.exit(main(["run", sys.argv[1], "--source", sys.argv[2], "--headless", "--json"]))
"""
    summary = json.loads(run_python(code, bundle, video).splitlines()[-1])["summary"]
    assert summary["frames"] == 60


def test_evaluating_needs_no_torch(bundle, video):
    (video.parent / "clips.csv").write_text(f"path,label\n{video.name},brighter\n")
    code = """
import brightness_engine
brightness_engine.register()
sys.modules["tqdm"] = None
from vmp_edge.cli import main
sys.exit(main(["evaluate", sys.argv[1], "--data", sys.argv[2], "--workers", "0", "--json"]))
"""
    assert json.loads(run_python(code, bundle, video.parent / "clips.csv").splitlines()[-1])["clips"] == 1


def test_help_of_every_command_needs_no_torch():
    code = """
from vmp_edge.cli import COMMANDS, main
assert all(main([command, "--help"]) == 0 for command in COMMANDS)
"""
    assert "usage: vmp-edge build" in run_python(code)


def test_modules_that_need_torch_say_what_to_install():
    code = """
import vmp_edge
sys.modules["torch"] = None
for name in ("models.create", "ops"):
    try:
        value = vmp_edge
        for part in name.split("."):
            value = getattr(value, part)
    except vmp_edge.MissingDependencyError as error:
        assert vmp_edge.installation.install_command("compile") in str(error)
    else:
        raise AssertionError(name)
"""
    run_python(code)
