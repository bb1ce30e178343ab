"""Whether targets hold what was delivered: compared with the sources, the ledger or each other; and repaired."""
