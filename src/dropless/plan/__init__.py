"""From SQL over named relations to operators the engines run. Pure; DuckDB in memory is the oracle of types."""
