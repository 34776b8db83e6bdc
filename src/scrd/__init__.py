"""Scale-aware contrastive reverse distillation: what a normal medical image looks like."""

__version__ = "0.1.0"
