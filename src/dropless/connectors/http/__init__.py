"""Records of an HTTP API, page by page, kept in a durable log before anything else sees them (L1)."""
