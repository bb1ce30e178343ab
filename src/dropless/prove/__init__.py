"""`dropless prove`: a pipeline is run again and again in a scratch copy under faults, and must come out the same.

A campaign samples the sources, runs the pipeline undisturbed, and then plays trials: processes that are killed,
starved, stopped or lied to, each followed by a resume and a comparison. One seed decides every trial.
"""
