"""The durable record: runs, epochs, offsets, fates, verdicts, dead letters, contract and definition versions."""
