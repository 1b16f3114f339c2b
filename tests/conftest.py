"""One thread: tests are small, and sums must not depend on the machine's cores. And every call into normwise is checked."""

import os

# Before torch is loaded: threads that wait must not spin, since two processes and their children share the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from jaxtyping import config

import typechecker

torch.set_num_threads(1)
typechecker.install()


@pytest.fixture(autouse=True)
def unchecked(request):
    """Calls go unchecked in whole commands (`flow`) and in tests marked `slow`: others, which are checked, make the same ones."""
    whole = "flow" in request.node.path.parts
    config.update("jaxtyping_disable", whole or request.node.get_closest_marker("slow") is not None)
    yield
    config.update("jaxtyping_disable", False)
