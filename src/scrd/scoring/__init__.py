"""From a network's answers to scores, p-values and verdicts; nothing here imports PyTorch."""
