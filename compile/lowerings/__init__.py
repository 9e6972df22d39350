"""The lowerings, one for each engine: from an exported program to the file that the engine executes."""
