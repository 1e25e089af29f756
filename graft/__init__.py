"""The program: command line, commands, settings, project file, and `graft check`.

Doors: `cli`, `project`, `settings`, `process`, `check`, `client`, and the rooms `commands`, `init`, `fit`.
Imports: `student`, `teacher_cache`, `stream`, `features`, `runtime`.
"""

import os

# Set before numpy is imported. Our matrix products are small: a second BLAS thread only waits for a core, which on two
# busy ones made a scoring request of 1.4 ms one of 8 ms (benchmarks/scorer.py).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
