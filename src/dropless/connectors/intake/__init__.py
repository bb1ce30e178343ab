"""A durable log for what cannot be read again (L1), the service that fills it, and the source that reads it."""
