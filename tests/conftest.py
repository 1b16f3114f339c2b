"""One thread: tests are small, and sums must not depend on the machine's cores. And every call into normwise is checked."""

import torch

import typechecker

torch.set_num_threads(1)
typechecker.install()
