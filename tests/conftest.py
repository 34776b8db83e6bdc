import os

# the suites share small machines, where threads that spin hold up the others
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch  # noqa: E402

# one thread makes float sums repeat exactly
torch.set_num_threads(1)
