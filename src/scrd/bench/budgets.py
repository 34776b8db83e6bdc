"""What a comparison may cost: settings that all rows of a table have in common, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Any]

BUDGETS: Mapping[str, Settings] = {
    "paper": {
        "window": "image",
        "teacher": "wide_resnet50_2",
        "image_size": 256,
        "iterations": 4000,
        "batch_size": 16,
    },
    "shipped": {
        "window": "image",
        "teacher": "efficientnet_lite0",
        "image_size": 256,
        "iterations": 4000,
        "batch_size": 16,
    },
    "standard": {
        "window": "image",
        "teacher": "efficientnet_lite0",
        "image_size": 256,
        "iterations": 1000,
        "batch_size": 16,
    },
    "cpu": {
        "window": "image",
        "teacher": "efficientnet_lite0",
        "image_size": 256,
        "iterations": 300,
        "batch_size": 16,
    },
    "small": {
        "window": "image",
        "teacher": "efficientnet_lite0",
        "image_size": 128,
        "iterations": 300,
        "batch_size": 16,
        "held_out": 0.25,
    },
}
"""Section 3.1.3 of the paper; the defaults of `scrd train`; what one GPU does within an hour and a
CPU overnight; what two CPU cores finish at the paper's resolution; what one core finishes at half
of it. Reported in this order. A suite may change or add budgets."""
