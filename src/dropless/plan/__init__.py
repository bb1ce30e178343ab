"""From SQL over named relations to operators the engines run. Pure: DuckDB is used in memory, as the oracle of types only."""
