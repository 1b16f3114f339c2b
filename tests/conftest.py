"""One thread: tests are small, and sums must not depend on the machine's cores."""

import torch

torch.set_num_threads(1)
