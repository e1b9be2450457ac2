"""Tables of tcbench, v1 and dev."""
