"""One package per system. A connector imports `dropless.connect`, `dropless.errors`, pyarrow and its driver."""
