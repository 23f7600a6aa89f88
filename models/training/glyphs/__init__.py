"""How the bundled `glyphs` model, its verifiers and its statistics are made."""
