"""The deployments of conf_examples/ with the real programs and real traffic, or clients that behave as theirs."""
