"""The machine that a report's numbers come from."""

import os
import platform

MACHINE = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
