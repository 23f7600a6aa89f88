"""Training of the bundled verifiers of `glyphs`: auditor, CLIP, DINOv2, aesthetic head."""
