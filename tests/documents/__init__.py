"""Are the documents true? Every link leads somewhere, every configuration loads, every command is one."""
