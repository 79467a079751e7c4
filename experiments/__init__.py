"""Studies of ours, one file each; its docstring has the question, command, hardware and results."""
