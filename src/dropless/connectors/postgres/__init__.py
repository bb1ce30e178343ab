"""PostgreSQL tables as sources and sinks. Needs the extra `dropless[postgres]`."""
