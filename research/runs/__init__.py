"""A run: its config, parts, stages and evaluation; runs that extend or start from another one."""
