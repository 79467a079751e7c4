"""Our questions, one file a study: its docstring says question, command, hardware and result."""
