"""The embedded runtime: row-wise lanes, stateful operators, state files, and the loop that drives them."""
