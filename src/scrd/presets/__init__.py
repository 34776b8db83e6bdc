"""Published trainings as files of settings, ``*.toml`` beside this one, and what reads them."""
