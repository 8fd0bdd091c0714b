"""The real pynvml, for a module of that name that stands before it on the path."""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType


def load(own_file: str) -> ModuleType:
    """A copy of the module that `import pynvml` finds behind the folder of `own_file`."""
    path = [Path(folder or ".").resolve() for folder in sys.path]
    own_folder = Path(own_file).parent
    behind = path.index(own_folder) + 1 if own_folder in path else 0
    spec = PathFinder.find_spec("pynvml", sys.path[behind:])
    assert spec is not None and spec.loader is not None, "nvidia-ml-py is not installed"
    module = module_from_spec(spec)
    standing = sys.modules.get("pynvml")
    sys.modules["pynvml"] = module  # where it puts the classes of its errors
    try:
        spec.loader.exec_module(module)
    finally:
        sys.modules.pop("pynvml")
        if standing:
            sys.modules["pynvml"] = standing
    return module
