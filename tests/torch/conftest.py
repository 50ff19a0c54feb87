"""These tests need the extra images, and run on one thread: where a machine is shared, more threads wait for each other."""

from importlib.util import find_spec

import pytest

if any(find_spec(name) is None for name in ("torch", "safetensors", "diffusers", "sklearn")):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)
