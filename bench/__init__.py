"""How fast papertrial is against what one would use instead: `python -m bench`, or `make bench`, which installs the peers first."""

import papertrial  # noqa: F401 - sets how OpenMP waits, before torch is loaded
