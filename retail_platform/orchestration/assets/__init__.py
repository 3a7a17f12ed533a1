"""The software-defined assets, a module per schema of the lake."""
