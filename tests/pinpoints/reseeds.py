"""What `reseeding_import` imports."""

import numpy as np

np.random.seed(1234)  # RESEED
